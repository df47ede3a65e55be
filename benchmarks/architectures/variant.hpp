// The program of one variant of architectures.sh: tells its costs, and times what it is told to, line by line on standard
// input, so that variants take turns.
//   costs                          a JSON object
//   image|text|train PRECISION BATCH SECONDS
//                                  the median time of one call in milliseconds, over calls that fill SECONDS, at least one
//   peak                           the most memory this process has had, in bytes
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdio>
#include <iostream>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include <sys/resource.h>

#include <tandem/losses/contrastive.hpp>
#include <tandem/models/clip.hpp>
#include <tandem/models/describe.hpp>
#include <tandem/train/optimizer.hpp>

namespace architectures {

namespace td = tandem;

/// Captions have as many tokens as the average of the clip art's titles and keywords.
constexpr std::size_t caption_tokens(std::size_t context) { return std::min<std::size_t>(context, 13); }

template <auto config>
class Variant {
public:
    double image(const std::string& precision, std::size_t batch, double seconds) {
        return with_model(precision, [&](const auto& model) {
            using Model = std::remove_cvref_t<decltype(model)>;
            const Batch<Model> items(batch);
            typename Model::Embeddings embeddings(batch);
            return median(seconds, [&] { model.encode_image(items.images, embeddings); });
        });
    }

    double text(const std::string& precision, std::size_t batch, double seconds) {
        return with_model(precision, [&](const auto& model) {
            using Model = std::remove_cvref_t<decltype(model)>;
            const Batch<Model> items(batch);
            typename Model::Embeddings embeddings(batch);
            return median(seconds, [&] { model.encode_text(items.ids, embeddings); });
        });
    }

    /// Forward, backward and AdamW.
    double train(std::size_t batch, double seconds) {
        using Model = td::Clip<config>;
        struct Training {
            Model model{td::Seed{0}}, gradient;
            td::AdamW::State<Model> state;
            typename Model::Workspace work;
        };
        Training& training = held<Training>("train");
        const Batch<Model> items(batch);
        const td::AdamW optimizer{.rate = 1e-4F};
        return median(seconds, [&] {
            td::zero_parameters(training.gradient);
            loss(training, items);
            optimizer.update(training.model, training.gradient, training.state, optimizer.rate);
        });
    }

    static void print_costs() {
        const td::Cost image = td::image_cost(config),
                       text = td::text_cost(config, caption_tokens(config.text.context)), whole = td::detail::whole_cost(config);
        const auto field = [](const char* name, std::size_t value) { std::cout << '"' << name << "\": " << value << ", "; };
        std::cout << '{';
        field("parameters", whole.parameters);
        field("image_parameters", image.parameters);
        field("bytes_f32", td::parameter_bytes<float>(config));
        field("bytes_bf16", td::parameter_bytes<td::bf16>(config));
        field("bytes_int8", td::parameter_bytes<td::int8>(config));
        field("image_flops", image.flops);
        field("image_executed", image.executed);
        field("text_flops", text.flops);
        field("text_executed", text.executed);
        field("image_activation_bytes", sizeof(float) * image.inference);
        field("training_activation_bytes", sizeof(float) * (image.training() + text.training()));
        std::cout << "\"description\": \"" << escaped(td::describe<config>()) << "\"}" << std::endl;
    }

private:
    template <class Model>
    struct Batch {
        td::Tensor<float, typename Model::Vision::Input::shape> images;
        td::Tensor<td::Id, typename Model::Text::Input::shape> ids;

        explicit Batch(std::size_t count) : images(count), ids(count) {
            constexpr std::size_t context = Model::Text::Input::shape::extents[1], tokens = caption_tokens(context);
            td::Random random{td::Seed{1}};
            td::fill_normal(images, random, 1.0);
            const std::size_t end = Model::architecture.text.vocabulary - 1;
            for (std::size_t i = 0; i < count; ++i) {
                for (std::size_t j = 0; j + 1 < tokens; ++j) ids(i, j) = static_cast<td::Id>(random.below(end));
                ids(i, tokens - 1) = static_cast<td::Id>(end);
            }
        }
    };

    template <class Training, class Items>
    static void loss(Training& training, const Items& items) {
        if constexpr (config.logit_bias) {
            training.model.loss_and_gradient(items.images, items.ids, td::SigmoidLoss{}, training.gradient, training.work);
        } else {
            training.model.loss_and_gradient(items.images, items.ids, td::InfoNce{}, training.gradient, training.work);
        }
    }

    /// One model at a time: a list may be long, and all its programs wait in memory.
    template <class Thing, class... Arguments>
    Thing& held(const std::string& name, Arguments... arguments) {
        if (name != held_name_) {
            held_.reset();
            held_ = std::make_shared<Thing>(arguments...);
            held_name_ = name;
        }
        return *static_cast<Thing*>(held_.get());
    }

    template <class Body>
    double with_model(const std::string& precision, const Body& body) {
        if (precision == "bf16") return body(held<td::Clip<config, td::bf16>>(precision, td::Seed{0}));
        if (precision == "int8") return body(held<td::Clip<config, td::int8>>(precision, td::Seed{0}));
        return body(held<td::Clip<config>>("f32", td::Seed{0}));
    }

    template <class Work>
    static double median(double seconds, const Work& work) {
        using Clock = std::chrono::steady_clock;
        std::vector<double> times;
        const Clock::time_point began = Clock::now();
        for (Clock::time_point now = began; times.empty() || now - began < std::chrono::duration<double>(seconds);) {
            work();
            const Clock::time_point after = Clock::now();
            times.push_back(1e3 * std::chrono::duration<double>(after - now).count());
            now = after;
        }
        std::nth_element(times.begin(), times.begin() + static_cast<std::ptrdiff_t>(times.size() / 2), times.end());
        return times[times.size() / 2];
    }

    static std::string escaped(const std::string& text) {
        std::string out;
        for (const char c : text) {
            if (c == '"' || c == '\\') out += '\\';
            if (c == '\n') {
                out += "\\n";
            } else {
                out += c;
            }
        }
        return out;
    }

    std::string held_name_;
    std::shared_ptr<void> held_;
};

template <auto config>
int run() {
    Variant<config> variant;
    for (std::string line; std::getline(std::cin, line);) {
        std::istringstream words(line);
        std::string what, precision;
        std::size_t batch = 1;
        double seconds = 0;
        words >> what >> precision >> batch >> seconds;
        if (what == "costs") {
            variant.print_costs();
        } else if (what == "peak") {
            rusage usage{};
            getrusage(RUSAGE_SELF, &usage);
            std::cout << usage.ru_maxrss * 1024 << std::endl;
        } else {
            const double time = what == "image"  ? variant.image(precision, batch, seconds)
                                : what == "text" ? variant.text(precision, batch, seconds)
                                                 : variant.train(batch, seconds);
            std::cout << time << std::endl;
        }
    }
    return 0;
}

}  // namespace architectures
