#!/usr/bin/env bash
# Seconds to compile what users compile, each program one translation unit at -O2, header-only and with tandem::compiled.
#   benchmarks/compile_time.sh [--compiler CXX] [--runs N] [--only REGEX] [--trace]
# The programs are compiled in turn, N rounds (default 3); of user seconds the median is printed, beside Eigen's header.
# Below it, how g++ divides them (parse, instantiate, generate) and the sizes of object files. --trace instead has clang 19
# say, for every program and both ways, which headers and which templates cost most.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
"$here/.cmake/debian_packages.sh" g++ python3 binutils libtbb-dev libxsimd-dev rapidjson-dev libjpeg62-turbo-dev libpng-dev \
    libutf8proc-dev zlib1g-dev libeigen3-dev
for argument in "$@"; do
    if [[ $argument == --trace ]]; then "$here/.cmake/debian_packages.sh" clang-19; fi
done
exec python3 "$here/benchmarks/compile_time/compile_time.py" "$@"
