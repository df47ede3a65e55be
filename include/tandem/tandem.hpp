// tandem: CLIP models as C++ types. This header is all of the library but CUDA (cuda.cuh) and Eigen (tensor/eigen.hpp).
// What needs a C library appears where that library's headers are, and is linked only if used.
#pragma once

#include <tandem/data/pairs.hpp>
#include <tandem/files/safetensors.hpp>
#include <tandem/images/codec.hpp>
#include <tandem/images/preprocess_config.hpp>
#include <tandem/losses/contrastive.hpp>
#include <tandem/losses/matryoshka.hpp>
#include <tandem/models/check_gradients.hpp>
#include <tandem/models/checkpoint.hpp>
#include <tandem/models/clip.hpp>
#include <tandem/models/cost.hpp>
#include <tandem/models/describe.hpp>
#include <tandem/models/open.hpp>
#include <tandem/models/zoo.hpp>
#include <tandem/nn/compose.hpp>
#include <tandem/tasks/fusion.hpp>
#include <tandem/tasks/index.hpp>
#include <tandem/tasks/query.hpp>
#include <tandem/tasks/recommend.hpp>
#include <tandem/tasks/relevance.hpp>
#include <tandem/tasks/retrieval.hpp>
#include <tandem/tasks/tagging.hpp>
#include <tandem/tasks/zero_shot.hpp>
#include <tandem/texts/any_tokenizer.hpp>
#include <tandem/texts/bpe.hpp>
#include <tandem/texts/bpe_trainer.hpp>
#include <tandem/texts/json_tokenizer.hpp>
#include <tandem/texts/sentence_piece.hpp>
#include <tandem/texts/word_piece.hpp>
#include <tandem/texts/xlm_roberta_tokenizer.hpp>
#include <tandem/train/trainer.hpp>
