#!/usr/bin/env bash
# tandem beside ONNX Runtime, OpenVINO and open_clip on PyTorch, on this CPU: ViT-B/32 with the same weights, inputs and
# threads, each in its own process and in turn, each peer by its best setting; the embeddings are checked first.
#   benchmarks/compare.sh [--threads N] [--json FILE] [--rounds N] [--rows REGEX]
# Makes .venv-compare (compare_requirements.txt: 2.5 GB to download) and the peers' formats of the model first. Takes about
# 15 minutes after that on two cores. Text and training: 1,000 captions of Open Clip Art; tandem computes them up to their
# end. The ceiling counts the dense model's operations, of captions those up to their end: savings beyond show as a larger
# share.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
"$here/.cmake/debian_packages.sh" g++ cmake ninja-build python3-venv python3-dev libtbb-dev libxsimd-dev nlohmann-json3-dev \
    openclipart-svg
"$here/benchmarks/compare_venv.sh"
build=$here/build/compare
python=$here/.venv-compare/bin/python
# What PyTorch compiles is kept from run to run. OpenVINO and NNCF report usage home, but not where CI is set.
export TORCHINDUCTOR_CACHE_DIR=$build/inductor HF_HUB_OFFLINE=1 CI=true CUDA_VISIBLE_DEVICES=
compare() { "$python" "$here/benchmarks/compare.py" --program "$build/benchmarks/compare" --folder "$build/files" "$@"; }
for argument in "$@"; do
    case $argument in -h | --help) compare --help && exit ;; esac
done
cmake --preset release -S "$here" -B "$build" -DTANDEM_BUILD_TESTS=OFF -DTANDEM_BUILD_EXAMPLES=OFF >/dev/null
cmake --build "$build" --target benchmark_compare -- --quiet
"$python" "$here/benchmarks/compare_models.py" "$build/files"
compare "$@"
