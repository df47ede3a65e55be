#!/usr/bin/env bash
# Trains every variant of a list of architectures with the same budget and seeds, evaluates them, and reports.
#   examples/study/study.sh [--list FILE.hpp] [--budget samples|flops|minutes=N] [--seeds K] [--out DIR] [--data DIR]
#                           [--variants REGEX] [--family REGEX] [--rounds N] [--no-times]
# FILE.hpp defines variants as `inline constexpr td::ClipConfig NAME{...};` (default: examples/study/list.hpp); the first is
# the base, and NAME_loss may give one a loss. Data: Open Clip Art, or a folder as for quickstart.sh. A trial is a process of
# its own; started again, the study goes on where it was. DIR (default: study) gets report.html, trials.csv, study.json, and
# two of the pictures as pareto.svg and differences.svg.
# --family names the variants of the scaling fit (default: base and size_*); --rounds those of architectures.sh, which
# measures the costs at the end (--no-times: constants only).
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
out=study data="" arguments=("$@")
for ((i = 0; i + 1 < $#; ++i)); do
    [[ ${arguments[i]} == --out ]] && out=${arguments[i + 1]}
    [[ ${arguments[i]} == --data ]] && data=${arguments[i + 1]}
done
packages=(g++ binutils python3 libtbb-dev libxsimd-dev rapidjson-dev nlohmann-json3-dev libeigen3-dev libjpeg62-turbo-dev libpng-dev
    libutf8proc-dev zlib1g-dev)
[[ -n $data ]] || packages+=(openclipart-png openclipart-svg)
if [[ " $* " != *" -h "* && " $* " != *" --help "* ]]; then
    "$here/.cmake/debian_packages.sh" "${packages[@]}"
    mkdir -p "$out"
    if [[ -z $data ]]; then
        [[ -f $out/captions.tsv ]] || python3 "$here/examples/quickstart/openclipart.py" --out "$out/captions.tsv"
    elif [[ ! -f $data/captions.tsv ]]; then
        python3 "$here/examples/quickstart/folders.py" "$data" --out "$out/captions.tsv"
    fi
fi
exec python3 "$here/examples/study/study.py" "$@"
