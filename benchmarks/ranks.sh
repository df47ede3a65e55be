#!/usr/bin/env bash
# Training steps of ViT-B/32 by one process on all cores, with the batch as a whole and in the ranks' shares, and by ranks of one core each, in turn
# in one run: pairs a second, and whether the weights of the latter two are the same. All on one machine: nothing here speaks of a network.
#   benchmarks/ranks.sh [--rounds N] [--ranks N] [--batch N]       default: 3 rounds, 2 ranks, 64 pairs a step
# Builds examples/train first, with Open MPI.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
rounds=3 ranks=2 batch=64
while (($#)); do
    [[ $# -ge 2 && $2 =~ ^[1-9][0-9]*$ ]] || { echo "ranks.sh [--rounds N] [--ranks N] [--batch N]" >&2; exit 2; }
    case "$1" in
        --rounds) rounds=$2 ;;
        --ranks) ranks=$2 ;;
        --batch) batch=$2 ;;
        *) echo "ranks.sh [--rounds N] [--ranks N] [--batch N]" >&2; exit 2 ;;
    esac
    shift 2
done
((batch % ranks == 0)) || { echo "ranks.sh: --batch: expected a multiple of --ranks, found $batch" >&2; exit 2; }
"$here/examples/train.sh" -np 1 --help >/dev/null
program=$here/build/train/examples/train/train
((EUID != 0)) || export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
options=(--model vit_b_32 --dataset-type synthetic --train-num-samples $((4 * batch)) --epochs 1
    --log-every-n-steps 1 --snapshot-steps 1000 --save-frequency 0 --logs "$folder")
# Pairs a second of a run's steps but the first.
rate() { sed 1d "$folder/$1/log.jsonl" | sed 's/.*samples_per_second":\([0-9.e+-]*\).*/\1/' | sort -g | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }
median() { sort -g | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }
same=yes
for ((round = 0; round < rounds; ++round)); do
    share=(--batch-size $((batch / ranks)) --shares "$ranks")
    "$program" "${options[@]}" --batch-size "$batch" --name "whole$round" >/dev/null 2>&1
    "$program" "${options[@]}" "${share[@]}" --accum-freq "$ranks" --name "one$round" >/dev/null 2>&1
    mpirun -np "$ranks" --use-hwthread-cpus --map-by slot:PE=1 "$program" "${options[@]}" "${share[@]}" --name "ranks$round" >/dev/null 2>&1
    rate "whole$round" >>"$folder/whole.rates"
    rate "one$round" >>"$folder/one.rates"
    rate "ranks$round" >>"$folder/ranks.rates"
    cmp -s "$folder/one$round/model.safetensors" "$folder/ranks$round/model.safetensors" || same=no
    rm -rf "$folder/whole$round" "$folder/one$round" "$folder/ranks$round"
done
w=$(median <"$folder/whole.rates") a=$(median <"$folder/one.rates") b=$(median <"$folder/ranks.rates")
printf '%-34s %10s\n' "ViT-B/32, $batch pairs a step" pairs/s
printf '%-34s %10.2f\n' "one process, $(nproc) cores" "$w"
printf '%-34s %10.2f\n' "the same, a share at a time" "$a"
printf '%-34s %10.2f\n' "$ranks ranks" "$b"
printf 'ranks / one process: %.3f, a share at a time: %.3f; same weights as the latter: %s\n' "$(awk "BEGIN { print $b / $w }")" "$(awk "BEGIN { print $b / $a }")" "$same"
