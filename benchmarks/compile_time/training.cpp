#include <tandem/tandem.hpp>

namespace td = tandem;

inline constexpr td::ClipConfig clipart{
    .vision = td::VitConfig{.image = 64, .patch = 8, .width = 192, .layers = 6, .heads = 3},
    .text = td::TextConfig{.vocabulary = 4096, .context = 32, .width = 192, .layers = 4, .heads = 3},
    .embedding = 128};

int main(int, char** arguments) {
    const auto tokenizer = td::Bpe::load(arguments[1]);
    const auto pairs = td::Pairs::load(arguments[2], arguments[3], tokenizer, clipart.text.context,
                                       {.preprocess = td::openai_preprocess(64)});
    td::Clip<clipart> model{td::Seed{0}};
    td::Trainer trainer{model, td::AdamW{}, td::WarmupCosine{}, td::InfoNce{}, td::TrainerOptions{.epochs = 10}};
    trainer.fit(pairs);
    td::save_weights(model, arguments[4]);
}
