#!/usr/bin/env bash
# Tar shards to a model's input: JPEGs of 500 x 375 to normalised 224 x 224 crops in batches of 64, captions tokenised, on all cores,
# beside open_clip's webdataset loader with 1, 2, 4 and 8 workers, in turn in one run.
#   benchmarks/shards.sh [--rounds N] [--pairs N]       default: 3 rounds, 4,000 pairs
# Makes .venv-parity (tests/parity/venv.sh: PyTorch, about 2.5 GB to download) and builds the benchmark first.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
rounds=3 pairs=4000
while (($#)); do
    [[ $# -ge 2 && $2 =~ ^[1-9][0-9]*$ ]] || { echo "shards.sh [--rounds N] [--pairs N]" >&2; exit 2; }
    case "$1" in
        --rounds) rounds=$2 ;;
        --pairs) pairs=$2 ;;
        *) echo "shards.sh [--rounds N] [--pairs N]" >&2; exit 2 ;;
    esac
    shift 2
done
"$here/tests/parity/venv.sh" >&2
python=$here/.venv-parity/bin/python
cmake --preset release -S "$here" -B "$here/build/benchmark" -DTANDEM_BUILD_TESTS=OFF -DTANDEM_BUILD_PROGRAM=OFF -DTANDEM_BUILD_EXAMPLES=OFF >/dev/null
cmake --build "$here/build/benchmark" --target benchmark_shards -- --quiet
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"$python" "$here/benchmarks/shards_peer.py" make "$folder" 8 $((pairs / 8))
pattern="$folder/{000000..000007}.tar"
vocabulary=$("$python" -W ignore -c 'import open_clip, pathlib; print(pathlib.Path(open_clip.__file__).parent / "bpe_simple_vocab_16e6.txt.gz")')
median() { sort -g | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }
workers=(1 2 4 8)
for ((round = 0; round < rounds; ++round)); do
    "$here/build/benchmark/benchmarks/shards" "$vocabulary" "$pattern" 64 2>/dev/null >>"$folder/tandem"
    for count in "${workers[@]}"; do
        "$python" -W ignore "$here/benchmarks/shards_peer.py" read "$pattern" $((pairs / 8 * 8)) 64 "$count" 2>/dev/null >>"$folder/peer.$count"
    done
done
a=$(median <"$folder/tandem") best=0
printf '%-28s %10s\n' loader pairs/s
printf '%-28s %10.1f\n' tandem "$a"
for count in "${workers[@]}"; do
    b=$(median <"$folder/peer.$count")
    printf '%-28s %10.1f\n' "open_clip, workers $count" "$b"
    best=$(awk "BEGIN { print ($b > $best) ? $b : $best }")
done
printf 'tandem / open_clip at its best: %.2f\n' "$(awk "BEGIN { print $a / $best }")"
