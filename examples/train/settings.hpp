// What a run of `train` is told: open_clip's options under their names.
#pragma once

#include <cstddef>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include <tandem/core/ranks.hpp>
#include <tandem/data/samples.hpp>
#include <tandem/images/color_jitter.hpp>
#include <tandem/images/transform.hpp>
#include <tandem/losses/captions.hpp>

#include "../tandem/command.hpp"

namespace training {

namespace td = tandem;

struct Settings {
    std::string train_data, val_data, dataset_type, tokenizer_data;
    std::vector<double> upsampling;  ///< of the sources in train_data; empty: 1 each
    td::TableOptions table;
    std::size_t train_num_samples = 0;
    bool strict = false;
    std::size_t batch_size = 64, accum_freq = 1, epochs = 32;
    std::string opt = "adamw";
    double lr = 5e-4, wd = 0.2, grad_clip_norm = 0, ema_decay = 0;
    std::optional<double> beta1, beta2, eps, momentum;
    std::optional<std::size_t> warmup;
    std::string lr_scheduler = "cosine";
    std::size_t epochs_cooldown = 0;
    double lr_cooldown_end = 0, lr_cooldown_power = 1;
    std::string precision = "fp32", model = "architecture";
    std::filesystem::path pretrained, tokenizer, distill_pretrained;
    std::string distill_model;
    td::Repeats same_captions = td::Repeats::negatives;
    double label_smoothing = 0;
    bool lock_image = false, lock_text = false, siglip = false;
    std::size_t lock_image_unlocked_groups = 0, lock_text_unlocked_layers = 0;
    double image_layer_decay = 1, text_layer_decay = 1;
    std::size_t grad_checkpointing_blocks = 0;  ///< of each tower
    td::RandomResizedCrop crop{};
    double hflip = 0;
    td::ColorJitter jitter{};
    double color_jitter_prob = 0, gray_scale_prob = 0;
    std::size_t max_image_pixels = td::DecodeOptions{}.pixel_limit;
    std::size_t save_frequency = 1, snapshot_steps = 100, log_every_n_steps = 100;
    bool save_most_recent = false, delete_previous_checkpoint = false, resume = false;
    std::filesystem::path logs = "logs", imagenet_val, imagenet_names;
    std::string name;
    std::size_t seed = 0, val_frequency = 1, zeroshot_frequency = 2;
    std::size_t shares = 0;
    bool shard_optimizer = false;
    double rank_timeout = 30;
    td::Ranks* ranks = nullptr;  ///< of which this process is one; nullptr: alone

    std::size_t ranks_count() const { return ranks == nullptr ? 1 : ranks->size(); }
    bool is_first_rank() const { return ranks == nullptr || ranks->rank() == 0; }
    /// All ranks come here before one goes on.
    void meet() const {
        if (ranks != nullptr) td::gather_texts(*ranks, "");
    }

    std::filesystem::path folder() const { return logs / name; }
    std::filesystem::path snapshot() const { return folder() / "checkpoints" / "snapshot.safetensors"; }
};

/// The program's command line as --help, and as it is read.
program::Command command(const std::vector<std::string>& models);

/// The words of a command line as Arguments takes them: --name=value in two words, the values of --aug-cfg in one. Throws UsageError for an option
/// of open_clip's that is not here, which says what to do instead.
std::vector<std::string> as_words(int count, char** arguments);

/// Throws UsageError, which names the option, for what is out of range or does not go together.
Settings read_settings(const program::Arguments& given, const std::vector<std::string>& models);

}  // namespace training
