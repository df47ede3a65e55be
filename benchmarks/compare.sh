#!/usr/bin/env bash
# tandem beside ONNX Runtime, OpenVINO and open_clip on PyTorch, on this CPU: ViT-B/32 with the same weights, inputs and
# threads, each in a process of its own, in turn, each peer at its best setting; that they agree is checked first.
#   benchmarks/compare.sh [--threads N] [--json FILE] [--record] [--rounds N] [--rows REGEX] [--precision f32|bf16|int8]
# Makes .venv-compare (2.5 GB to download) and the peers' formats of the model first; --rows, --precision and --rounds
# shorten the run. --record keeps what it finds in benchmarks/results, from which benchmarks/results.py makes the README's
# table. Captions are 1,000 of Open Clip Art; "text" and "train" give peers all 77 positions, "_padded" as many as the
# longest caption of a batch has. cold_start and memory: the files of the peers hold the image tower, and tandem
# loads that one alone; cold_start_packed and memory_of_ten: tandem maps a packed file (td::map_packed) of both.
# The share of the ceiling counts the operations of the dense model, of captions those up to their end.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
"$here/.cmake/debian_packages.sh" g++ cmake ninja-build python3-venv python3-dev libtbb-dev libxsimd-dev \
    rapidjson-dev openclipart-svg
"$here/.cmake/venv.sh" .venv-compare "$here/benchmarks/compare_requirements.txt" \
    'nncf, onnx, onnxruntime, onnxscript, open_clip, openvino, safetensors.torch, timm, torch'
# What PyTorch compiles is kept from run to run. OpenVINO and NNCF report usage home, but not where CI is set.
export TORCHINDUCTOR_CACHE_DIR=$here/build/compare/inductor CI=true HF_HUB_OFFLINE=1 CUDA_VISIBLE_DEVICES=
exec "$here/.venv-compare/bin/python" "$here/benchmarks/compare.py" "$@"
