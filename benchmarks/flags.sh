#!/usr/bin/env bash
# What -march=native is worth to a program that was compiled with -O2: the same benchmarks built both ways, run in turn.
#   benchmarks/flags.sh [--rounds N]       default: 3 rounds
# Above 1, the program without flags is the faster one.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
rounds=3
[[ $# -eq 0 ]] || { [[ $# -eq 2 && $1 == --rounds ]] && rounds=$2; } || { echo "flags.sh [--rounds N]" >&2; exit 2; }
"$here/.cmake/debian_packages.sh" g++ libtbb-dev libxsimd-dev rapidjson-dev libbenchmark-dev
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
for program in encode train_step; do
    for flags in "" -march=native; do
        # shellcheck disable=SC2086
        g++ -std=c++20 -O2 $flags -I"$here/include" "$here/benchmarks/$program.cpp" -o "$folder/$program$flags" \
            -lbenchmark -ltbb &
    done
    wait
done
median() { sort -g | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }
printf '%-34s %12s %14s %8s\n' benchmark "-O2 ms" "-march=native" ratio
while read -r program name; do
    for ((round = 0; round < rounds; ++round)); do
        for flags in "" -march=native; do
            "$folder/$program$flags" --benchmark_filter="^$name/real_time\$" --benchmark_format=csv 2>/dev/null |
                awk -F, 'END { print $3 }' >>"$folder/times$flags"
        done
    done
    plain=$(median <"$folder/times") native=$(median <"$folder/times-march=native")
    printf '%-34s %12.2f %14.2f %8.3f\n' "$name" "$plain" "$native" "$(awk "BEGIN { print $native / $plain }")"
    rm "$folder/times" "$folder/times-march=native"
done <<'LIST'
encode vit_b_32/image/f32/1
encode vit_b_32/image/f32/32
encode vit_b_32/image/bf16/32
encode vit_b_32/image/int8/32
encode vit_b_32/text/f32/32
train_step clipart/256/13
train_step vit_b_32/32/13
LIST
