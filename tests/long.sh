#!/usr/bin/env bash
# The long forms of what tests/run.sh checks shortly: a run is killed 1,000 times, and 300 times inside a save, and one of several ranks 100 times;
# every run goes on and ends in the bits of one that nobody touched. Prints how many there were; about 20 minutes on two cores.
#   tests/long.sh [--kills N] [--saves N] [--rank-kills N]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

kills=1000 saves=300 rank_kills=100
while (($#)); do
    case "$1" in
        --kills | --saves | --rank-kills)
            [[ $# -ge 2 && $2 =~ ^[0-9]+$ ]] || { echo "tests/long.sh: $1 needs a number" >&2; exit 2; }
            case "$1" in
                --kills) kills=$2 ;;
                --saves) saves=$2 ;;
                *) rank_kills=$2 ;;
            esac
            shift 2
            ;;
        -h | --help)
            sed -n '2,4s/^# \{0,1\}//p' tests/long.sh
            exit 0
            ;;
        *)
            echo "tests/long.sh: unknown argument $1 (known: --kills N, --saves N, --rank-kills N)" >&2
            exit 2
            ;;
    esac
done

.cmake/debian_packages.sh g++ cmake ninja-build python3 libtbb-dev libxsimd-dev rapidjson-dev nlohmann-json3-dev libjpeg62-turbo-dev libpng-dev \
    libutf8proc-dev zlib1g-dev libwebp-dev libarchive-dev libopenmpi-dev openmpi-bin
cmake --preset release -DTANDEM_BUILD_TESTS=OFF -DTANDEM_BUILD_PROGRAM=OFF -DTANDEM_BUILD_BENCHMARKS=OFF -B build/train >/dev/null
cmake --build build/train --target example_train -- --quiet
program=build/train/examples/train/train
python3 tests/programs/train_test.py --program "$program" --kills "$kills" --saves "$saves" Train.test_goes_on_after_kills_in_the_same_bits
python3 tests/programs/ranks_test.py --program "$program" --kills "$rank_kills" Ranks.test_killed_ranks_end_the_run_and_others_go_on_in_the_same_bits
