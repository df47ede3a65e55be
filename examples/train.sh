#!/usr/bin/env bash
# Trains or fine-tunes a CLIP under open_clip's options; builds the program first, with what it needs.
#   examples/train.sh --train-data PATH [OPTION...]         --help lists the options
#   examples/train.sh make_shards PATH --out DIR            writes tar shards from a folder or a table
# TANDEM_TRAIN_MODELS in the environment names the zoo's architectures that --model offers (default: vit_b_32).
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
program=train
if [[ ${1:-} == make_shards ]]; then
    program=make_shards
    shift
fi
if (($# == 0)); then
    sed -n '2,5s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
    exit 2
fi
{
    "$here/.cmake/debian_packages.sh" g++ cmake ninja-build libtbb-dev libxsimd-dev rapidjson-dev nlohmann-json3-dev libjpeg62-turbo-dev libpng-dev \
        libutf8proc-dev zlib1g-dev libwebp-dev
    cmake --preset release -S "$here" -B "$here/build/train" -DTANDEM_BUILD_TESTS=OFF -DTANDEM_BUILD_PROGRAM=OFF -DTANDEM_BUILD_BENCHMARKS=OFF \
        -DTANDEM_TRAIN_MODELS="${TANDEM_TRAIN_MODELS:-vit_b_32}" >/dev/null
    cmake --build "$here/build/train" --target "example_$program" -- --quiet
} >&2
exec "$here/build/train/examples/train/$program" "$@"
