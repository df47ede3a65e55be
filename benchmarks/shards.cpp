// tandem's side of shards.sh: pairs of tar shards to a model's input, as a trainer fetches them.
//   shards VOCABULARY PATTERN BATCH
#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <numeric>
#include <span>
#include <vector>

#include <tandem/tandem.hpp>

#include "ceiling.hpp"

namespace td = tandem;

int main(int count, char** arguments) {
    if (count != 4) {
        std::fprintf(stderr, "shards VOCABULARY PATTERN BATCH\n");
        return 2;
    }
    try {
        constexpr std::size_t context = 77, pixels = 3 * 224 * 224;
        const std::size_t batch = std::strtoul(arguments[3], nullptr, 10);
        const double began = ceiling::detail::now();
        const td::Dataset data(td::read_shards(td::expand_names(arguments[2])), td::open_tokenizer(arguments[1]), context,
                               {.view = {.preprocess = td::openai_preprocess(224), .crop = td::RandomResizedCrop{}}});
        const double listed = ceiling::detail::now();
        std::vector<std::size_t> order(data.size());
        std::iota(order.begin(), order.end(), std::size_t{0});
        td::Random random{td::Seed{0}};
        td::shuffle(order, random);
        std::vector<float> images(batch * pixels);
        std::vector<td::Id> ids(batch * context);
        double sum = 0;
        for (std::size_t first = 0; first + batch <= order.size(); first += batch) {
            td::parallel_for(batch, 4, [&](std::size_t begin, std::size_t end) {
                for (std::size_t i = begin; i < end; ++i) {
                    td::Random draws{td::Seed{1}, order[first + i]};
                    data.fetch(order[first + i], draws, std::span(images).subspan(i * pixels, pixels), std::span(ids).subspan(i * context, context));
                }
            });
            sum += static_cast<double>(images[first % images.size()]) + ids[1];
        }
        const double ended = ceiling::detail::now();
        const std::size_t seen = order.size() / batch * batch;
        if (!data.faults().empty() || sum == 0) throw td::Error(arguments[2], "shards without damage", "some");
        std::printf("%.1f\n", static_cast<double>(seen) / (ended - listed));
        std::fprintf(stderr, "%zu pairs listed in %.3f s\n", order.size(), listed - began);
    } catch (const td::Error& error) {
        std::fprintf(stderr, "shards: %s\n", error.what());
        return 1;
    }
}
