#!/usr/bin/env bash
# td::Index beside FAISS' IndexFlatIP on this CPU, in turn in one run: one query and 64 at once, exact and by bytes, with the
# rate at which memory can be read beside it, and whether the answers are the same.
#   benchmarks/search.sh [--rows N] [--width D] [--rounds N] [--threads N]      default: 1,000,000 rows of 512, 5 rounds
#   benchmarks/search.sh --check N [--embeddings FILE.safetensors]      instead: N answers against brute force
#   benchmarks/search.sh --approximate --embeddings FILE.safetensors [--rows N]      instead: graphs beside the exact index, for texts
# Rows and queries are random numbers of length 1, and, the second time, those of a narrow cone around 1,000 centres, as the
# embeddings of pictures are, with queries from another cone, as those of captions are.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
"$here/.cmake/debian_packages.sh" g++ cmake ninja-build python3-venv libtbb-dev libxsimd-dev rapidjson-dev libjpeg62-turbo-dev \
    libpng-dev libutf8proc-dev zlib1g-dev libhnswlib-dev
"$here/.cmake/venv.sh" .venv-search "$here/benchmarks/search_requirements.txt" 'faiss, numpy, safetensors'
cmake --preset release -S "$here" -B "$here/build/benchmark" -DTANDEM_BUILD_TESTS=OFF -DTANDEM_BUILD_PROGRAM=OFF \
    -DTANDEM_BUILD_EXAMPLES=OFF >/dev/null
cmake --build "$here/build/benchmark" --target benchmark_search -- --quiet
exec "$here/.venv-search/bin/python" "$here/benchmarks/search.py" "$here/build/benchmark/benchmarks/search" "$@"
