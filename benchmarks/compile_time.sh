#!/usr/bin/env bash
# Seconds to compile what users compile, each program one translation unit at -O2, beside Eigen's header.
#   benchmarks/compile_time.sh [--compiler CXX] [--runs N]
# The programs are compiled in turn, N rounds (default 3); the median of user seconds is printed, with the budget.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
compiler=g++ runs=3
while (($#)); do
    [[ $# -ge 2 ]] || { echo "compile_time.sh: $1 needs a value" >&2; exit 2; }
    case "$1" in
        --compiler) compiler=$2 ;;
        --runs) runs=$2 ;;
        *) echo "compile_time.sh: unknown argument $1 (known: --compiler, --runs)" >&2; exit 2 ;;
    esac
    shift 2
done
names=(include zero_shot training zoo "Eigen/Core")
budgets=(3 10 20 60 -)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
echo '#include <Eigen/Core>' >"$folder/4.cpp"
for i in 0 1 2 3; do cp "$here/benchmarks/compile_time/${names[$i]}.cpp" "$folder/$i.cpp"; done
for ((run = 0; run < runs; ++run)); do
    for i in "${!names[@]}"; do
        TIMEFORMAT=%U
        { time "$compiler" -std=c++20 -O2 -I"$here/include" -isystem /usr/include/eigen3 -c "$folder/$i.cpp" -o "$folder/o"; } \
            2>>"$folder/$i.times"
    done
done
printf '%-20s %10s %10s\n' program "median s" "budget s"
for i in "${!names[@]}"; do
    median=$(sort -n "$folder/$i.times" | sed -n "$(((runs + 1) / 2))p")
    printf '%-20s %10s %10s\n' "${names[$i]}" "$median" "${budgets[$i]}"
done
