#!/usr/bin/env bash
# Compares architectures: for every constant of a list what it costs, how fast it is in every precision, what it needs.
#   benchmarks/architectures.sh [--list FILE.hpp] [--out DIR] [--rounds N] [--variants REGEX]
# FILE.hpp defines variants as `inline constexpr td::ClipConfig NAME{...};` (default: benchmarks/architectures/list.hpp).
# Prints a table and writes table.csv, results.json and report.html to DIR (default: architectures). Variants are timed in
# turn, in processes that are started anew for each of the N rounds (default 8).
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
"$here/.cmake/debian_packages.sh" g++ binutils python3 libtbb-dev libxsimd-dev rapidjson-dev \
    libjpeg62-turbo-dev libpng-dev libutf8proc-dev zlib1g-dev
exec python3 "$here/benchmarks/architectures/architectures.py" "$@"
