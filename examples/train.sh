#!/usr/bin/env bash
# Trains or fine-tunes a CLIP under open_clip's options; builds the program first, with what it needs.
#   examples/train.sh --train-data PATH [OPTION...]         --help lists the options
#   examples/train.sh -np N --train-data PATH [OPTION...]   by N processes (Open MPI), which mpirun starts: a power of two
#   examples/train.sh make_shards PATH --out DIR            writes tar shards from a folder, a table or other shards
# TANDEM_TRAIN_MODELS in the environment names the zoo's architectures that --model offers (default: vit_b_32).
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
program=train packages=() launcher=()
if [[ ${1:-} == make_shards ]]; then
    program=make_shards
    shift
elif [[ ${1:-} == -np ]]; then
    [[ ${2:-} =~ ^[1-9][0-9]*$ ]] || { echo "train.sh: -np: expected a number of processes, found ${2:-none}" >&2; exit 2; }
    packages=(libopenmpi-dev openmpi-bin)
    # Open MPI would give each of two processes one core, however many there are.
    cores=$(nproc)
    if (($2 <= cores)); then
        launcher=(mpirun -np "$2" --use-hwthread-cpus --map-by "slot:PE=$((cores / $2))")
    else
        launcher=(mpirun -np "$2" --oversubscribe --bind-to none)
    fi
    # As root mpirun refuses, unless it is told twice.
    ((EUID != 0)) || export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
    shift 2
fi
if (($# == 0)); then
    sed -n '2,6s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
    exit 2
fi
{
    "$here/.cmake/debian_packages.sh" g++ cmake ninja-build libtbb-dev libxsimd-dev rapidjson-dev nlohmann-json3-dev libjpeg62-turbo-dev libpng-dev \
        libutf8proc-dev zlib1g-dev libwebp-dev libarchive-dev "${packages[@]}"
    cmake --preset release -S "$here" -B "$here/build/train" -DTANDEM_BUILD_TESTS=OFF -DTANDEM_BUILD_PROGRAM=OFF -DTANDEM_BUILD_BENCHMARKS=OFF \
        -DTANDEM_TRAIN_MODELS="${TANDEM_TRAIN_MODELS:-vit_b_32}" >/dev/null
    cmake --build "$here/build/train" --target "example_$program" -- --quiet
} >&2
exec "${launcher[@]}" "$here/build/train/examples/train/$program" "$@"
