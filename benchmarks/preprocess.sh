#!/usr/bin/env bash
# A 500 x 375 JPEG to CLIP's input on one core: tandem beside Pillow with torchvision, in turn in one run, and libjpeg's
# own decoding, which is part of both. CPU time on both sides. The program is built without any -m flag.
#   benchmarks/preprocess.sh [--rounds N] [--picture FILE.jpg]      default: 5 rounds, a picture the benchmark makes
# Makes .venv-parity (tests/parity/venv.sh: PyTorch, about 2.5 GB to download) unless PYTHON names an interpreter that has
# torchvision, and builds the benchmark first.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
usage() { sed -n '2,6s/^# //p' "${BASH_SOURCE[0]}" >&2; exit 2; }
rounds=5 picture=()
while [[ $# -gt 0 ]]; do
    [[ $# -ge 2 ]] || usage
    case $1 in
        --rounds) rounds=$2 ;;
        --picture) picture=("$2") ;;
        *) usage ;;
    esac
    shift 2
done
python=${PYTHON:-$here/.venv-parity/bin/python}
[[ -x $python ]] || "$here/tests/parity/venv.sh"
cmake --preset release -S "$here" -B "$here/build/benchmark_portable" -DTANDEM_NATIVE=OFF -DTANDEM_BUILD_TESTS=OFF -DTANDEM_BUILD_PROGRAM=OFF \
    -DTANDEM_BUILD_EXAMPLES=OFF >/dev/null
cmake --build "$here/build/benchmark_portable" --target benchmark_preprocess -- --quiet
program=$here/build/benchmark_portable/benchmarks/preprocess
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
median() { sort -g | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }
"$program" "${picture[@]}" --write "$folder/picture.jpg" "$folder/tensor.f32"
for ((round = 0; round < rounds; ++round)); do
    "$program" "${picture[@]}" --benchmark_format=csv --benchmark_min_time=0.5 2>"$folder/context" |
        awk -F, -v folder="$folder" '/^"/ { gsub(/"/, ""); print $4 >>(folder "/" $1) }'
    # (The first round of Pillow warms up.)
    "$python" "$here/benchmarks/preprocess_peer.py" "$folder/picture.jpg" 6 "$folder/tensor.f32" \
        2>"$folder/versions" | tail -n 5 >>"$folder/peer"
done
grep '^picture:' "$folder/context"
cat "$folder/versions"
total=$(median <"$folder/preprocess")
printf '%-42s %10s %10s %16s\n' "one core, medians of CPU time" "us" "images/s" "share of tandem"
row() { awk -v name="$1" -v us="$2" -v total="$total" \
    'BEGIN { printf "%-42s %10.0f %10.0f %15.0f%%\n", name, us, 1e6 / us, 100 * us / total }'; }
row "tandem, JPEG to normalised" "$total"
row "  libjpeg's decoding alone" "$(median <"$folder/libjpeg")"
row "  decode_image" "$(median <"$folder/decode")"
row "  fit_square (bicubic to 224)" "$(median <"$folder/resize")"
row "  normalise" "$(median <"$folder/normalise")"
peer=$(median <"$folder/peer")
row "Pillow + torchvision" "$peer"
awk "BEGIN { printf \"Pillow + torchvision / tandem: %.2f\\n\", $peer / $total }"
