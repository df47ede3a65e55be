#!/usr/bin/env bash
# A float32 training step of tandem beside open_clip's on PyTorch, captions of the full context, in turn in one run.
#   benchmarks/train_step.sh [--rounds N]       default: 3 rounds
# Makes .venv-parity (tests/parity/venv.sh: PyTorch, about 2.5 GB to download) and builds the benchmark first.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
rounds=3
[[ $# -eq 0 ]] || { [[ $# -eq 2 && $1 == --rounds ]] && rounds=$2; } || { echo "train_step.sh [--rounds N]" >&2; exit 2; }
python=$here/.venv-parity/bin/python
[[ -x $python ]] || "$here/tests/parity/venv.sh"
cmake --preset release -S "$here" -B "$here/build/benchmark" -DTANDEM_BUILD_TESTS=OFF -DTANDEM_BUILD_PROGRAM=OFF -DTANDEM_BUILD_EXAMPLES=OFF >/dev/null
cmake --build "$here/build/benchmark" --target benchmark_train_step -- --quiet
threads=$(nproc)
median() { sort -g | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }
tandem() {
    "$here/build/benchmark/benchmarks/train_step" --benchmark_filter="^$1/[0-9]+/0/real_time$" --benchmark_format=csv \
        --benchmark_min_time=3 2>/dev/null | awk -F, 'END { print $3 / 1000 }'
}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
printf '%-10s %12s %12s %18s\n' model "tandem s" "PyTorch s" "PyTorch / tandem"
for model in clipart vit_b_32; do
    for ((round = 0; round < rounds; ++round)); do
        tandem "$model" >>"$folder/tandem.$model"
        "$python" "$here/benchmarks/train_step_peer.py" "$model" "$threads" 6 | tail -n 4 | median >>"$folder/peer.$model"
    done
    a=$(median <"$folder/tandem.$model") b=$(median <"$folder/peer.$model")
    printf '%-10s %12.3f %12.3f %18.2f\n' "$model" "$a" "$b" "$(awk "BEGIN { print $b / $a }")"
done
