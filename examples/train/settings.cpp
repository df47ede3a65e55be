#include "settings.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <ctime>
#include <map>
#include <optional>
#include <string_view>
#include <system_error>
#include <utility>

#include "../tandem/table_options.hpp"

namespace training {

namespace {

using program::Arguments;
using program::UsageError;

/// Options of open_clip's that are not here (open_clip_train/params.py), and what to do instead.
const std::map<std::string, const char*, std::less<>> elsewhere{
    {"--val-num-samples", "leave it out: the pairs are counted"},
    {"--dataset-resampled", "leave it out: every pair comes once an epoch, or as often as --train-data-upsampling-factors says, and runs go on within one"},
    {"--image-key", "leave it out: jpg, jpeg, png and webp are read"},
    {"--text-key", "leave it out: txt, caption and json are read"},
    {"--json-text-key", "name the caption \"caption\" or \"captions\" in the JSON"},
    {"--json-text-key-probs", "leave it out: one of all captions is drawn, all alike"},
    {"--imagenet-v2", "give --imagenet-val a folder whose folders are named by what they show"},
    {"--cache-dir", "leave it out: nothing is downloaded"},
    {"--log-local", "leave it out: the first process writes the logs"},
    {"--workers", "leave it out: all cores decode ahead (taskset limits them)"},
    {"--opt-kwargs", "see --beta1, --beta2, --eps, --momentum"},
    {"--wd-exclude", "leave it out: vectors and scalars do not decay"},
    {"--opt-fallback-list", "leave it out: one optimizer has all parameters"},
    {"--text-pooler-own-group", "leave it out"},
    {"--ddp-static-graph", "leave it out: nothing is traced"},
    {"--no-set-device-rank", "leave it out: it trains on the CPU"},
    {"--train-loss-ema-samples", "leave it out: reports have the loss of their step"},
    {"--text-pad-multiple", "leave it out: captions cost as many tokens as they have"},
    {"--use-bnb-linear", "leave it out"},
    {"--use-bn-sync", "leave it out: a batch is normalised as a whole"},
    {"--skip-scheduler", "--lr-scheduler const --warmup 0"},
    {"--pretrained-image", "--pretrained with a checkpoint of both towers"},
    {"--lock-image-freeze-bn-stats", "leave it out: a locked tower's running means stay"},
    {"--lock-text-freeze-layer-norm", "leave it out: --lock-text locks norms too"},
    {"--image-mean", "put it into the preprocessor's config beside --pretrained"},
    {"--image-std", "put it into the preprocessor's config beside --pretrained"},
    {"--image-interpolation", "put it into the preprocessor's config beside --pretrained"},
    {"--image-resize-mode", "put it into the preprocessor's config beside --pretrained"},
    {"--local-loss", "leave it out: every process computes the loss of all pairs, in tiles"},
    {"--gather-with-grad", "leave it out: gradients are always those of the whole batch"},
    {"--force-context-length", "write it into the architecture at the top of examples/train/train.cpp"},
    {"--force-image-size", "write it into the architecture at the top of examples/train/train.cpp (td::with_image_size)"},
    {"--force-quick-gelu", "write it into the architecture at the top of examples/train/train.cpp (td::with_activation)"},
    {"--force-patch-dropout", "write it into the architecture at the top of examples/train/train.cpp (.patch_dropout)"},
    {"--force-custom-text", "leave it out"},
    {"--torchcompile", "leave it out: models are compiled"},
    {"--torchscript", "leave it out: models are compiled"},
    {"--device", "leave it out: it trains on the CPU"},
    {"--report-to", "leave it out: JSON lines, TensorBoard's files and report.html are always written"},
    {"--wandb-notes", "leave it out"},
    {"--wandb-project-name", "leave it out"},
    {"--debug", "leave it out"},
    {"--copy-codebase", "leave it out: a snapshot names all that its run depends on"},
    {"--fsdp", "leave it out: every process has the whole model"},
    {"--dist-url", "start it with mpirun -np N"},
    {"--dist-backend", "start it with mpirun -np N"},
    {"--log-metric-every-n-steps", "--log-every-n-steps"},
    {"--remote-sync", "rsync the folder --logs: its files are replaced as wholes"},
    {"--coca-caption-loss-weight", "leave it out: CoCa is not here"},
    {"--coca-contrastive-loss-weight", "leave it out: CoCa is not here"},
    {"--loss-dist-impl", "leave it out: every process computes the loss of all pairs, in tiles"},
    {"--use-naflex", "leave it out: NaFlex is not here"},
    {"--length-bucketing", "leave it out: captions cost as many tokens as they have"},
    {"--val-retrieval-chunk-size", "leave it out"},
    {"--val-retrieval-precision", "leave it out: it is fp32"},
};

std::string joined(const std::vector<std::string>& words) {
    std::string all;
    for (const std::string& word : words) all += (all.empty() ? "" : "|") + word;
    return all;
}

/// "(0.4, 1.0)" or "0.4,1.0": that many numbers of 0 or above. Nothing where they are others.
template <std::size_t count>
std::optional<std::array<double, count>> numbers(std::string text) {
    std::erase_if(text, [](char c) { return c == '(' || c == ')' || c == '[' || c == ']' || c == ' '; });
    std::array<double, count> found{};
    const char *at = text.data(), *const end = text.data() + text.size();
    for (std::size_t i = 0; i < count; ++i) {
        if (i > 0 && (at == end || *at++ != ',')) return {};
        const auto [next, fault] = std::from_chars(at, end, found[i]);
        if (fault != std::errc() || !(found[i] >= 0 && std::isfinite(found[i]))) return {};
        at = next;
    }
    if (at != end) return {};
    return found;
}

/// open_clip's ViT-B-32 is vit_b_32 here.
std::string zoo_name(std::string name) {
    std::ranges::transform(name, name.begin(), [](char c) { return c == '-' ? '_' : c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
    return name;
}

/// "1::2::0.5".
std::vector<double> factors(const char* option, const std::string& text) {
    std::vector<double> all;
    for (std::size_t begin = 0; begin <= text.size();) {
        const std::size_t end = std::min(text.find("::", begin), text.size());
        const auto found = numbers<1>(text.substr(begin, end - begin));
        if (!found || !((*found)[0] > 0 && (*found)[0] <= 1000)) throw UsageError(option, "numbers above 0, at most 1000, with :: between them", text);
        all.push_back((*found)[0]);
        begin = end + 2;
    }
    return all;
}

std::array<double, 2> two_numbers(const std::string& name, const std::string& text) {
    const auto found = numbers<2>(text);
    if (!found || !((*found)[0] > 0 && (*found)[0] <= (*found)[1]))
        throw UsageError("--aug-cfg " + name, "two numbers above 0, the smaller one first, as (0.4,1.0)", text);
    return *found;
}

double share(const std::string& name, const std::string& text) {
    const auto found = numbers<1>(text);
    if (!found || (*found)[0] > 1) throw UsageError("--aug-cfg " + name, "a number from 0 to 1", text);
    return (*found)[0];
}

void read_augmentation(const std::string& text, Settings& settings) {
    bool has_jitter = false, has_share = false;
    for (std::size_t begin = 0; begin < text.size();) {
        const std::size_t end = std::min(text.find('\n', begin), text.size());
        const std::string word = text.substr(begin, end - begin);
        begin = end + 1;
        if (word.empty()) continue;
        const std::size_t equals = word.find('=');
        const std::string name = word.substr(0, equals), value = equals == std::string::npos ? "" : word.substr(equals + 1);
        if (name == "scale") {
            const auto [low, high] = two_numbers(name, value);
            if (high > 1) throw UsageError("--aug-cfg scale", "shares of the area, at most 1", value);
            settings.crop.scale_low = low, settings.crop.scale_high = high;
        } else if (name == "ratio") {
            const auto [low, high] = two_numbers(name, value);
            settings.crop.ratio_low = low, settings.crop.ratio_high = high;
        } else if (name == "hflip") {
            settings.hflip = share(name, value);
        } else if (name == "color_jitter") {
            const auto found = numbers<4>(value);
            if (!found || std::ranges::max(*found) > 1e6 || (*found)[3] > 0.5)
                throw UsageError("--aug-cfg color_jitter", "four numbers of 0 or above: brightness, contrast, saturation and, at most 0.5, hue", value);
            settings.jitter = {.brightness = (*found)[0], .contrast = (*found)[1], .saturation = (*found)[2], .hue = (*found)[3]};
            has_jitter = true;
        } else if (name == "color_jitter_prob") {
            settings.color_jitter_prob = share(name, value);
            has_share = true;
        } else if (name == "gray_scale_prob") {
            settings.gray_scale_prob = share(name, value);
        } else {
            throw UsageError("--aug-cfg", "scale=(low,high), ratio=(low,high), hflip=share, color_jitter=(b,c,s,h), color_jitter_prob=share or gray_scale_prob=share", word);
        }
    }
    if (has_jitter != has_share)
        throw UsageError("--aug-cfg", "color_jitter=(b,c,s,h) and color_jitter_prob=share together", "one of them");
}

std::string default_name(const Settings& settings) {
    const std::time_t now = std::time(nullptr);
    std::tm local{};
    ::localtime_r(&now, &local);
    std::array<char, 32> text;
    std::strftime(text.data(), text.size(), "%Y_%m_%d-%H_%M_%S", &local);
    return std::string(text.data()) + "-model_" + settings.model + "-b_" + std::to_string(settings.batch_size) + "-p_" + settings.precision;
}

}  // namespace

program::Command command(const std::vector<std::string>& models) {
    static const std::string known = joined(models);
    return {"train",
            "train or fine-tune a CLIP on image-text pairs, under open_clip's options",
            "",
            "--train-data PATH [--val-data PATH] [--batch-size N] [--epochs N] [--name NAME]",
            "Trains the architecture at the top of examples/train/train.cpp, or another of --model. The folder LOGS/NAME gets model.safetensors "
            "with tokenizer/ (td::load opens them, and `tandem` where the architecture is the quickstart's or the zoo's), checkpoints/, log.jsonl (a line a report), TensorBoard's events, and report.html, which is "
            "rewritten as the run goes on. A run that is killed goes on with the same command and --resume latest, in the same bits as if nothing had "
            "happened. Samples that are damaged are left out and counted by cause and file. Under mpirun -np N (a power of two) as many processes train together: --batch-size is one's, "
            "the batch N times as large, and the result the same bits as with another N of the same --batch-size and N times --accum-freq. All see the folder LOGS. Exit codes: 3 after SIGTERM, SIGINT or SIGUSR1 (saved, to be "
            "resumed; mpirun passes on the last one, and gives a few seconds after the others), 4 where a rank did not answer.",
            {{"--train-data", "PATH", "shards (data/{000..099}.tar), a table, or a folder of pictures with captions; several with :: between them"},
             {"--train-data-upsampling-factors", "F::F", "how often an epoch has each pair of the sources in --train-data, exactly: 1::2::0.5 (default: once)"},
             {"--val-data", "PATH", "pairs that are not trained on: retrieval is measured on them"},
             {"--dataset-type", "webdataset|csv|folder|synthetic", "what the data are (default: auto, by each path's ending; synthetic needs none)"},
             {"--train-num-samples", "N", "of a synthetic data set; any other is counted"},
             program::table_option_list[0], program::table_option_list[1], program::table_option_list[2],
             {"--strict", "", "the first damaged sample ends the run"},
             {"--max-image-pixels", "N", "pixels of a picture, beyond which it is left out (0: never; default 178956970, as Pillow's)"},
             {"--batch-size", "N", "pairs in a process's memory at a time (default 64)"},
             {"--accum-freq", "K", "the batch is K times as large, with the whole batch's gradients (default 1)"},
             {"--epochs", "N", "how often the data are gone through (default 32)"},
             {"--opt", "adamw|stableadamw|lion|muon|sgd", "the optimizer (default adamw); stableadamw takes smaller steps where gradients outgrow their second moment, muon has AdamW's rate and decay"},
             {"--lr", "RATE", "its rate (default 5e-4)"},
             {"--beta1", "NUMBER", "of AdamW, also muon's, and Lion (default 0.9)"},
             {"--beta2", "NUMBER", "of AdamW (default 0.98 where the image tower has blocks, else 0.999) and Lion (0.99)"},
             {"--eps", "NUMBER", "of AdamW (default 1e-6 where the image tower has blocks, else 1e-8)"},
             {"--momentum", "NUMBER", "of SGD (default 0.9) and Muon (0.95)"},
             {"--wd", "NUMBER", "weight decay of matrices (default 0.2)"},
             {"--warmup", "STEPS", "of a rising rate (default 10000, at most a tenth of the run)"},
             {"--lr-scheduler", "cosine|const|const-cooldown", "what the rate does then (default cosine)"},
             {"--epochs-cooldown", "N", "of const-cooldown, at the end"},
             {"--lr-cooldown-end", "RATE", "where the cooldown ends (default 0)"},
             {"--lr-cooldown-power", "NUMBER", "of the cooldown's polynomial (default 1)"},
             {"--grad-clip-norm", "NUMBER", "longer gradients are cut to it (default: never)"},
             {"--ema-decay", "NUMBER", "keep a running average of the weights as well, in model_ema.safetensors (0.9999, say; default: none)"},
             {"--precision", "fp32|amp_bf16", "of products (default fp32)"},
             {"--model", known.c_str(), "the architecture (default: the one in train.cpp)"},
             {"--pretrained", "PATH", "weights to begin with: what td::load reads"},
             {"--tokenizer", "PATH", "default: what lies beside --pretrained, or one that is learned from the captions"},
             {"--tokenizer-data", "PATH", "the pairs from whose captions one is learned (default: those of --train-data)"},
             {"--siglip", "", "SigLIP's loss, as architectures with .logit_bias have it"},
             {"--same-captions", "negatives|positives|ignored", "what pairs of a batch with the same caption are to each other (default negatives, as in open_clip)"},
             {"--label-smoothing", "SHARE", "of a label that is spread over the batch (default 0; beside neither --siglip nor other --same-captions)"},
             {"--distill-pretrained", "PATH", "a teacher of the zoo or a run's, whose similarities are followed beside the labels: same image size, normalisation and tokenizer"},
             {"--distill-model", "NAME", "the architecture that the teacher is expected to have"},
             {"--lock-image", "", "leave the image tower as it is"},
             {"--lock-image-unlocked-groups", "N", "but for its last N groups of layers: the projection, the last block with its norm, ..."},
             {"--lock-text", "", "leave the text tower as it is"},
             {"--lock-text-unlocked-layers", "N", "but for its last N groups of layers, likewise"},
             {"--image-layer-decay", "D", "the image tower's rates fall by this factor from each group of layers to the one before it (default 1; also --visual-layer-decay)"},
             {"--visual-layer-decay", "D", "the same"},
             {"--text-layer-decay", "D", "likewise in the text tower"},
             {"--grad-checkpointing", "", "keep the inputs of blocks alone, and compute the rest again: less memory, the same bits, about a quarter more time"},
             {"--grad-checkpointing-blocks", "N", "the same of each tower's first N blocks alone: as much memory as is there, as little time as it takes"},
             {"--aug-cfg", "SETTINGS", "scale=(0.9,1.0) ratio=(0.75,1.3333) hflip=0: what is cropped and mirrored; color_jitter=(b,c,s,h) color_jitter_prob=0 gray_scale_prob=0: and recoloured"},
             {"--imagenet-val", "DIR", "a folder of classes, named as their folders: zero-shot accuracy is measured on it"},
             {"--imagenet-names", "FILE", "what its classes are called: lines of folder<TAB>name"},
             {"--val-frequency", "EPOCHS", "between measurements on --val-data (0: never; default 1)"},
             {"--zeroshot-frequency", "EPOCHS", "between those on --imagenet-val (0: never; default 2)"},
             {"--save-frequency", "EPOCHS", "between checkpoints epoch_N.safetensors (0: none; default 1)"},
             {"--save-most-recent", "", "keep epoch_latest.safetensors as well"},
             {"--delete-previous-checkpoint", "", "keep the last epoch_N alone"},
             {"--snapshot-steps", "N", "between snapshots, from which --resume goes on (default 100)"},
             {"--resume", "latest", "go on from the run's snapshot, if there is one"},
             {"--logs", "DIR", "where runs are (default logs)"},
             {"--name", "NAME", "of this one (default: date, model, batch size and precision)"},
             {"--log-every-n-steps", "N", "between reports (default 100)"},
             {"--seed", "N", "of weights, order and crops (default 0)"},
             {"--shares", "N", "a power of two: in how many shares a gradient is added up, which is how many ranks can compute it to the same bits; each doubling keeps a gradient more (default under mpirun: as the batch's parts allow, at most 8; else 1)"},
             {"--shard-optimizer", "", "each of several ranks keeps the optimizer's state of some parameters alone, updates them, and gets the others: less memory but where a run begins or saves, the same bits (ZeRO's first stage)"},
             {"--rank-timeout", "SECONDS", "of silence, after which a rank is given up (default 30)"}},
            nullptr};
}

std::vector<std::string> as_words(int count, char** arguments) {
    std::vector<std::string> words;
    bool in_augmentation = false;
    for (int i = 1; i < count; ++i) {
        std::string word = arguments[i];
        if (!word.starts_with("--")) {
            if (in_augmentation && words.back() != "--aug-cfg") {
                words.back() += "\n" + word;
            } else {
                words.push_back(word);
            }
            continue;
        }
        const std::size_t equals = word.find('=');
        const std::string name = word.substr(0, equals);
        if (const auto known = elsewhere.find(name); known != elsewhere.end())
            throw UsageError(name, std::string("open_clip has it, this program not: ") + known->second);
        if (name.starts_with("--naflex") || name.starts_with("--force-naflex") || name.starts_with("--bucket") || name == "--pretrained-audio" || name.starts_with("--audio") || name.starts_with("--torchcompile") || name.starts_with("--fsdp") || name.starts_with("--remote-sync"))
            throw UsageError(name, "open_clip has it, this program not: leave it out");
        in_augmentation = name == "--aug-cfg";
        words.push_back(name);
        if (equals != std::string::npos) words.push_back(word.substr(equals + 1));
    }
    return words;
}

Settings read_settings(const Arguments& given, const std::vector<std::string>& models) {
    Settings settings;
    constexpr std::size_t many = std::size_t{1} << 40;
    const auto optional_number = [&](const char* name, int most) -> std::optional<double> {
        if (!given.has(name)) return std::nullopt;
        return given.real(name, 0, 0, most);
    };
    settings.dataset_type = given.choose("--dataset-type", "auto", {"webdataset", "csv", "folder", "synthetic", "auto"});
    settings.train_data = settings.dataset_type == "synthetic" ? "" : given.require("--train-data");
    if (settings.dataset_type == "synthetic" && given.has("--train-data")) throw UsageError("--train-data", "none with --dataset-type synthetic", given.get("--train-data"));
    if (settings.dataset_type == "synthetic") {
        for (const char* const option : {"--val-data", "--imagenet-val", "--tokenizer", "--tokenizer-data", "--train-data-upsampling-factors"}) {
            if (given.has(option)) throw UsageError(option, "none with --dataset-type synthetic, which has no words", given.get(option));
        }
    }
    if (given.has("--train-data-upsampling-factors")) settings.upsampling = factors("--train-data-upsampling-factors", given.get("--train-data-upsampling-factors"));
    settings.val_data = given.get("--val-data");
    settings.train_num_samples = given.number("--train-num-samples", 0, many);
    if (settings.dataset_type == "synthetic") settings.train_num_samples = std::max<std::size_t>(settings.train_num_samples, 1);
    settings.table = program::table_options(given);
    settings.strict = given.has("--strict");
    settings.max_image_pixels = given.number("--max-image-pixels", settings.max_image_pixels, many, 0);
    if (settings.max_image_pixels == 0) settings.max_image_pixels = many;
    settings.batch_size = given.number("--batch-size", settings.batch_size);
    settings.accum_freq = given.number("--accum-freq", settings.accum_freq);
    settings.epochs = given.number("--epochs", settings.epochs);
    // open_clip has some of timm's.
    settings.opt = given.get("--opt", settings.opt);
    if (settings.opt.starts_with("timm/")) settings.opt.erase(0, 5);
    settings.opt = program::one_of("--opt", settings.opt, {"adamw", "stableadamw", "lion", "muon", "sgd"});
    settings.lr = given.real("--lr", settings.lr, 0, 1000);
    settings.beta1 = optional_number("--beta1", 1);
    settings.beta2 = optional_number("--beta2", 1);
    settings.eps = optional_number("--eps", 1);
    settings.momentum = optional_number("--momentum", 1);
    const auto of = [&](const char* option, std::initializer_list<const char*> optimizers) {
        if (given.has(option) && std::ranges::find(optimizers, settings.opt, [](const char* name) { return std::string(name); }) == optimizers.end())
            throw UsageError(option, "an option of --opt " + settings.opt, option);
    };
    of("--beta1", {"adamw", "stableadamw", "lion", "muon"}), of("--beta2", {"adamw", "stableadamw", "lion", "muon"});
    of("--eps", {"adamw", "stableadamw", "muon"}), of("--momentum", {"muon", "sgd"});
    settings.wd = given.real("--wd", settings.wd, 0, 1000);
    if (given.has("--warmup")) settings.warmup = given.number("--warmup", 0, many, 0);
    settings.lr_scheduler = given.choose("--lr-scheduler", settings.lr_scheduler, {"cosine", "const", "const-cooldown"});
    settings.epochs_cooldown = given.number("--epochs-cooldown", 0);
    if ((settings.lr_scheduler == "const-cooldown") != given.has("--epochs-cooldown"))
        throw UsageError("--epochs-cooldown", "it and --lr-scheduler const-cooldown together", "one of them");
    if (settings.epochs_cooldown > settings.epochs) throw UsageError("--epochs-cooldown", "at most --epochs, " + std::to_string(settings.epochs), given.get("--epochs-cooldown"));
    settings.lr_cooldown_end = given.real("--lr-cooldown-end", settings.lr_cooldown_end, 0, 1000);
    if (settings.lr_cooldown_end > settings.lr) throw UsageError("--lr-cooldown-end", "a rate of at most --lr", given.get("--lr-cooldown-end"));
    settings.lr_cooldown_power = given.real("--lr-cooldown-power", settings.lr_cooldown_power, 0, 100);
    settings.grad_clip_norm = given.real("--grad-clip-norm", settings.grad_clip_norm, 0, 1'000'000);
    settings.ema_decay = given.share("--ema-decay", 0);
    if (settings.ema_decay == 1) throw UsageError("--ema-decay", "a number from 0 to below 1", "1");
    settings.precision = given.choose("--precision", settings.precision, {"fp32", "amp_bf16"});
    settings.model = zoo_name(given.get("--model", models.front()));
    if (std::ranges::find(models, settings.model) == models.end())
        throw UsageError("--model", "one of " + joined(models) + " (the build's TANDEM_TRAIN_MODELS), or an architecture in examples/train/train.cpp", settings.model);
    settings.pretrained = given.get("--pretrained");
    settings.tokenizer = given.get("--tokenizer");
    settings.tokenizer_data = given.get("--tokenizer-data");
    if (!settings.tokenizer_data.empty() && !(settings.tokenizer.empty() && settings.pretrained.empty()))
        throw UsageError("--tokenizer-data", "neither --tokenizer nor --pretrained beside it, since it is for learning one", settings.tokenizer_data);
    settings.siglip = given.has("--siglip");
    const std::string same = given.choose("--same-captions", "negatives", {"negatives", "positives", "ignored"});
    settings.same_captions = same == "positives" ? td::Repeats::positives : same == "ignored" ? td::Repeats::ignored : td::Repeats::negatives;
    settings.label_smoothing = given.share("--label-smoothing", 0);
    if (settings.siglip && settings.label_smoothing > 0) throw UsageError("--label-smoothing", "none with --siglip, whose loss has no softmax", given.get("--label-smoothing"));
    if (settings.label_smoothing > 0 && settings.same_captions != td::Repeats::negatives)
        throw UsageError("--label-smoothing", "none beside --same-captions " + same + ", whose labels are others", given.get("--label-smoothing"));
    settings.distill_pretrained = given.get("--distill-pretrained");
    settings.distill_model = zoo_name(given.get("--distill-model"));
    if (!settings.distill_model.empty() && settings.distill_pretrained.empty()) throw UsageError("--distill-model", "--distill-pretrained beside it", "none");
    settings.lock_image = given.has("--lock-image");
    settings.lock_text = given.has("--lock-text");
    settings.lock_image_unlocked_groups = given.number("--lock-image-unlocked-groups", 0, 1000, 0);
    if (settings.lock_image_unlocked_groups > 0 && !settings.lock_image)
        throw UsageError("--lock-image-unlocked-groups", "--lock-image beside it", "none");
    settings.lock_text_unlocked_layers = given.number("--lock-text-unlocked-layers", 0, 1000, 0);
    if (settings.lock_text_unlocked_layers > 0 && !settings.lock_text)
        throw UsageError("--lock-text-unlocked-layers", "--lock-text beside it", "none");
    const auto decay = [&](const char* option, double& to) {
        to = given.share(option, to);
        if (to == 0) throw UsageError(option, "a number above 0, at most 1", given.get(option));
    };
    if (given.has("--image-layer-decay") && given.has("--visual-layer-decay"))
        throw UsageError("--visual-layer-decay", "it or --image-layer-decay, which mean the same", "both");
    decay("--visual-layer-decay", settings.image_layer_decay);
    decay("--image-layer-decay", settings.image_layer_decay);
    decay("--text-layer-decay", settings.text_layer_decay);
    settings.grad_checkpointing_blocks = given.number("--grad-checkpointing-blocks", given.has("--grad-checkpointing") ? 1'000'000 : 0);
    read_augmentation(given.get("--aug-cfg"), settings);
    settings.imagenet_val = given.get("--imagenet-val");
    settings.imagenet_names = given.get("--imagenet-names");
    if (!settings.imagenet_names.empty() && settings.imagenet_val.empty()) throw UsageError("--imagenet-names", "--imagenet-val beside it", "none");
    settings.val_frequency = given.number("--val-frequency", settings.val_frequency, 1'000'000, 0);
    settings.zeroshot_frequency = given.number("--zeroshot-frequency", settings.zeroshot_frequency, 1'000'000, 0);
    settings.save_frequency = given.number("--save-frequency", settings.save_frequency, 1'000'000, 0);
    settings.snapshot_steps = given.number("--snapshot-steps", settings.snapshot_steps);
    settings.log_every_n_steps = given.number("--log-every-n-steps", settings.log_every_n_steps);
    settings.save_most_recent = given.has("--save-most-recent");
    settings.delete_previous_checkpoint = given.has("--delete-previous-checkpoint");
    settings.resume = given.has("--resume");
    if (settings.resume && given.get("--resume") != "latest")
        throw UsageError("--resume", "latest: the snapshot of the run --name", given.get("--resume"));
    if (settings.resume && !given.has("--name")) throw UsageError("--resume", "--name beside it, of the run that goes on", "none");
    settings.logs = given.get("--logs", settings.logs.string());
    settings.name = given.get("--name", default_name(settings));
    if (settings.name.find('/') != std::string::npos || settings.name == "." || settings.name == "..")
        throw UsageError("--name", "the name of a folder in --logs", settings.name);
    settings.seed = given.number("--seed", 0, many, 0);
    settings.shares = given.number("--shares", 0);
    settings.shard_optimizer = given.has("--shard-optimizer");
    settings.rank_timeout = given.real("--rank-timeout", settings.rank_timeout, 2, 86400);
    return settings;
}

}  // namespace training
