#!/usr/bin/env bash
# Trains every variant of a list of architectures with the same budget and seeds, evaluates them, and reports.
#   examples/study/study.sh [--list FILE.hpp] [--budget samples|flops|minutes=N] [--seeds K] [--out DIR] [--data DIR]
#                           [--variants REGEX] [--family REGEX] [--rounds N] [--no-times]
# FILE.hpp defines variants as `inline constexpr td::ClipConfig NAME{...};` (default: examples/study/list.hpp); the first is
# the base, and NAME_loss may give one a loss. Data: Open Clip Art, or a folder as for quickstart.sh. A trial is a process of
# its own. Started again, the study goes on where it was; trials of another list, budget, library, compiler, CPU or of other
# data are made anew, and a line says so. DIR (default: study) gets report.html, trials.csv, study.json, and two of the
# pictures as pareto.svg and differences.svg.
# --family names the variants of the scaling fit (default: base and size_*); --rounds those of architectures.sh, which
# measures the costs at the end (--no-times: constants only).
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
packages=(g++ binutils python3 libtbb-dev libxsimd-dev rapidjson-dev nlohmann-json3-dev libeigen3-dev libjpeg62-turbo-dev libpng-dev
    libutf8proc-dev zlib1g-dev)
[[ " $*" == *" --data"* ]] || packages+=(openclipart-png openclipart-svg)
[[ " $* " == *" -h "* || " $* " == *" --help "* ]] || "$here/.cmake/debian_packages.sh" "${packages[@]}"
exec python3 "$here/examples/study/study.py" "$@"
