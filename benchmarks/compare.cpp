// tandem's side of benchmarks/compare.sh: one process, one precision. It loads the checkpoint and answers the lines on
// its standard input (benchmarks/compare_peers.py describes them).
//   compare PRECISION FOLDER THREADS          answers until its input ends; PRECISION is f32, bf16, amp_bf16 or int8, and
//                                             FOLDER is named vit_b_32, or vit_l_14 or vit_b_16_siglip: their image towers
//   compare PRECISION FOLDER THREADS first    the first embedding and no more, then the peak of its memory
//   compare PRECISION FOLDER THREADS packed   the same of a packed file of the model, made where it is not there
#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include <tbb/global_control.h>

#include <tandem/losses/contrastive.hpp>
#include <tandem/models/checkpoint.hpp>
#include <tandem/models/clip.hpp>
#include <tandem/models/cost.hpp>
#include <tandem/models/packed_file.hpp>
#include <tandem/models/zoo.hpp>
#include <tandem/train/optimizer.hpp>

#include "ceiling.hpp"

namespace td = tandem;

namespace {

constexpr auto whole = td::vit_b_32;
/// As open_clip runs it: timm's image tower has the exact GELU, that of transformers and of the paper's code the tanh form.
constexpr auto siglip = td::with_activation(td::vit_b_16_siglip, td::Gelu{});
constexpr std::size_t image_size = 3 * whole.vision.image.area();  // of all models here
constexpr std::size_t context = whole.text.context;

/// The first `count` elements of a file that holds nothing else.
template <class T>
std::vector<T> read(const std::filesystem::path& path, std::size_t count) {
    std::vector<T> values(count);
    std::ifstream file(path, std::ios::binary);
    file.read(reinterpret_cast<char*>(values.data()), static_cast<std::streamsize>(count * sizeof(T)));
    if (!file) throw td::Error(path.string(), std::to_string(count) + " elements", "fewer");
    return values;
}

/// The most memory this process ever had resident, in MB.
double peak_memory() {
    std::ifstream status("/proc/self/status");
    for (std::string word; status >> word;) {
        double kilobytes = 0;
        if (word == "VmHWM:" && status >> kilobytes) return kilobytes / 1024;
    }
    throw td::Error("/proc/self/status", "no VmHWM");
}

/// What a training step needs beside the model; nothing where the model does not train.
template <class Model, bool trains = Model::trains>
struct Training {
    double step(Model&, const auto&, const auto&) { throw td::Error("compare", "this precision does not train"); }
};

template <class Model>
struct Training<Model, true> {
    Model gradient;
    typename Model::Workspace work;
    td::AdamW::State<Model> moments;
    td::AdamW optimizer{.rate = 1e-4};

    double step(Model& model, const auto& images, const auto& ids) {
        td::zero_parameters(gradient);
        const double loss = model.loss_and_gradient(images, ids, td::InfoNce{}, gradient, work);
        optimizer.update(model, gradient, moments, optimizer.rate);
        model.clamp_logit_scale();
        return loss;
    }
};

/// A process's first embedding, and the peak of its memory; it is there until its input ends.
void embed_first(const auto& model, const std::filesystem::path& folder) {
    td::Tensor<float, typename std::remove_cvref_t<decltype(model)>::Vision::Input::shape> image(1);
    std::ranges::copy(read<float>(folder / "images.f32", image_size), image.data());
    (void)model.encode_image(image);
    std::cout << "done" << std::endl << peak_memory() << std::endl;
    std::cin.get();
}

/// A model with captions and training, or its image tower alone.
template <auto config, class T, bool is_whole = false>
class Worker {
    using Model = td::Clip<config, T>;
    using Images = td::Tensor<float, typename Model::Vision::Input::shape>;
    using Ids = td::Tensor<td::Id, typename Model::Text::Input::shape>;

public:
    explicit Worker(std::filesystem::path folder) : folder_(std::move(folder)) {
        td::load_weights(model_, folder_ / "model.safetensors", {.towers = is_whole ? td::Towers::both : td::Towers::image});
    }

    void serve(std::size_t threads) {
        const auto all = [&]<class Element>(const char* name, std::vector<Element>& to) {
            to = read<Element>(folder_ / name, std::filesystem::file_size(folder_ / name) / sizeof(Element));
        };
        all("images.f32", all_images_);
        if (is_whole) all("ids.i32", all_ids_);
        std::cout << td::kernels::name_of(td::kernels::active_isa()) << std::endl;
        for (std::string line; std::getline(std::cin, line);) {
            std::istringstream words(line);
            std::string verb, work;
            std::size_t batch = 0, begin = 0, repeats = 0;
            words >> verb;
            if (verb == "ceiling") {
                constexpr auto precision = td::Real<T>                 ? ceiling::Precision::f32
                                           : std::same_as<T, td::int8> ? ceiling::Precision::int8
                                                                       : ceiling::Precision::bf16;
                std::cout << ceiling::gflops(precision, threads);
            } else if (verb == "loss") {
                std::cout << loss_;
            } else if (verb == "embed" && words >> work) {
                check(work);
                write(work);
            } else if ((verb == "time" || verb == "flops") && words >> work >> batch >> begin >> repeats) {
                check(work);
                for (std::size_t i = begin; i < begin + repeats; ++i) {
                    std::cout << (verb == "time" ? milliseconds(work, batch, i) : flops(work, batch, i)) << ' ';
                }
            } else {
                throw td::Error("compare", "unknown request " + line);
            }
            std::cout << std::endl;
        }
    }

private:
    static void check(const std::string& work) {
        if (!is_whole && work != "image") throw td::Error("compare", "image, of this model", work);
    }

    Images images(std::size_t count) const {
        Images batch(count);
        std::copy_n(all_images_.data(), count * image_size, batch.data());
        return batch;
    }

    /// Captions in their order, batch after batch, over and over.
    Ids ids(std::size_t count, std::size_t index) const {
        const std::size_t batches = all_ids_.size() / context / count;
        Ids batch(count);
        std::copy_n(all_ids_.data() + index % batches * count * context, count * context, batch.data());
        return batch;
    }

    double milliseconds(const std::string& work, std::size_t count, std::size_t index) {
        const Images image_batch = images(count);
        Ids id_batch;
        if (work != "image") id_batch = ids(count, index);
        const auto begin = std::chrono::steady_clock::now();
        if (work == "image") {
            (void)model_.encode_image(image_batch);
        } else if constexpr (is_whole) {
            if (work.starts_with("text")) {
                (void)model_.encode_text(id_batch);
            } else {
                if (!training_) training_ = std::make_unique<Training<Model>>();
                loss_ = training_->step(model_, image_batch, id_batch);
            }
        }
        return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin).count();
    }

    /// Operations of the dense model on the same work, but with no caption longer than its tokens.
    double flops(const std::string& work, std::size_t count, std::size_t index) const {
        const auto image = static_cast<double>(count * td::image_cost(config).flops);
        if (work == "image") return image;
        const Ids batch = ids(count, index);
        double text = 0;
        for (std::size_t i = 0; i < count; ++i) {
            const td::Id* const row = batch.data() + i * context;
            const auto tokens = static_cast<std::size_t>(std::max_element(row, row + context) - row) + 1;
            text += static_cast<double>(whole.text.cost(tokens).flops + 2 * whole.text.width * whole.embedding);
        }
        return work.starts_with("text") ? text : 3 * (image + text);
    }

    void write(const std::string& work) const {
        const std::size_t count = all_images_.size() / image_size;
        typename Model::Embeddings embeddings;
        if (work == "image") {
            embeddings = model_.encode_image(images(count));
        } else if constexpr (is_whole) {
            embeddings = model_.encode_text(ids(count, 0));
        }
        std::ofstream(folder_ / "found", std::ios::binary)
            .write(reinterpret_cast<const char*>(embeddings.data()),
                   static_cast<std::streamsize>(embeddings.size() * sizeof(float)));
    }

    std::filesystem::path folder_;
    Model model_;
    std::vector<float> all_images_;
    std::vector<td::Id> all_ids_;
    std::unique_ptr<Training<Model>> training_;
    double loss_ = 0;
};

template <class T>
void run(const std::filesystem::path& folder, std::size_t threads, const std::string& precision, const std::string& what) {
    const std::string model = folder.filename();
    if (what.empty() && model == "vit_l_14") return Worker<td::vit_l_14, T>(folder).serve(threads);
    if (what.empty() && model == "vit_b_16_siglip") return Worker<siglip, T>(folder).serve(threads);
    if (model != "vit_b_32") throw td::Error("compare", "a folder named vit_b_32" + std::string(what.empty() ? ", vit_l_14 or vit_b_16_siglip" : ""), model);
    if (what == "packed") {
        const td::PackedOptions options{.source = folder / "model.safetensors", .log = nullptr};
        return embed_first(*td::map_packed<whole, T>(folder / ("packed_" + precision + ".safetensors"), options), folder);
    }
    if (what == "first") {
        // The peers' files for this row hold the image tower alone.
        td::Clip<whole, T> model_of_one;
        td::load_weights(model_of_one, folder / "model.safetensors", {.towers = td::Towers::image});
        return embed_first(model_of_one, folder);
    }
    Worker<whole, T, true>(folder).serve(threads);
}

}  // namespace

int main(int count, char** arguments) try {
    const std::vector<std::string> words(arguments + 1, arguments + count);
    const std::string what = words.size() == 4 ? words[3] : "";
    if (words.size() != 3 && what != "first" && what != "packed")
        throw td::Error("compare", "f32|bf16|amp_bf16|int8 FOLDER THREADS [first|packed]");
    const std::size_t threads = std::stoul(words[2]);
    const tbb::global_control limit(tbb::global_control::max_allowed_parallelism, threads);
    const auto run_as = words[0] == "f32"        ? run<float>
                        : words[0] == "bf16"     ? run<td::bf16>
                        : words[0] == "amp_bf16" ? run<td::amp_bf16>
                        : words[0] == "int8"     ? run<td::int8>
                                                 : throw td::Error("compare", "f32, bf16, amp_bf16 or int8", words[0]);
    run_as(words[1], threads, words[0], what);
} catch (const std::exception& error) {
    std::cerr << error.what() << '\n';
    return 1;
}
