#!/usr/bin/env bash
# Trains a CLIP from scratch on real image–text pairs, evaluates it on images it never saw, and writes a report.
#   examples/quickstart.sh [--out DIR] [--data DIR] [--minutes M] [--steps N] [--seed S] [--resume]
#
#   --out DIR      where weights, metrics.json and report.html go (default: quickstart)
#   --data DIR     the user's own images instead of Open Clip Art: a folder with images and captions.tsv
#                  (path<TAB>caption, several lines an image allowed), or one whose folders are the classes
#   --minutes M    time to train (default: 10); the learning rate follows it
#   --steps N      train this many steps instead; the result then depends on the seed alone
#   --seed S       of weights, order, captions and crops (default: 0)
#   --resume       go on from DIR's snapshot, as after a kill, with the same options and data
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

fail() {
    echo "quickstart.sh: $1" >&2
    exit 2
}

out=$here/quickstart data="" arguments=() seen=" "
while (($#)); do
    [[ $seen != *" $1 "* ]] || fail "$1 is given twice"
    seen+="$1 "
    case "$1" in
        --out | --data | --minutes | --steps | --seed)
            [[ $# -ge 2 && -n $2 ]] || fail "$1 needs a value"
            # Before anything is built; the program knows the bounds.
            case "$1" in
                --minutes) [[ $2 =~ ^[0-9]+(\.[0-9]+)?$ ]] || fail "--minutes: expected a number above 0, found \"$2\"" ;;
                --steps | --seed) [[ $2 =~ ^[0-9]+$ ]] || fail "$1: expected a whole number, found \"$2\"" ;;
            esac
            case "$1" in
                --out) out=$2 ;;
                --data) data=$2 ;;
                *) arguments+=("$1" "$2") ;;
            esac
            shift 2
            ;;
        --resume)
            arguments+=("$1")
            shift
            ;;
        -h | --help)
            sed -n '2,12s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
            exit 0
            ;;
        *) fail "unknown argument $1; --help lists them" ;;
    esac
done
[[ -z $data || -d $data ]] || fail "--data $data: no such folder"
mkdir -p "$out" 2>/dev/null && [[ -w $out ]] || fail "--out $out: cannot be made or written to"

packages=(g++ cmake ninja-build python3 libtbb-dev libxsimd-dev rapidjson-dev nlohmann-json3-dev libjpeg62-turbo-dev libpng-dev
    libutf8proc-dev zlib1g-dev)
[[ -n $data ]] || packages+=(openclipart-png openclipart-svg)
"$here/.cmake/debian_packages.sh" "${packages[@]}"

cmake --preset release -S "$here" -DTANDEM_BUILD_TESTS=OFF -DTANDEM_BUILD_PROGRAM=OFF -DTANDEM_BUILD_BENCHMARKS=OFF -B "$here/build/quickstart" >/dev/null
echo "Building"
cmake --build "$here/build/quickstart" --target example_quickstart -- --quiet

if [[ -n $data ]]; then
    if [[ -f $data/captions.tsv ]]; then
        captions=$data/captions.tsv
    else
        captions=$out/captions.tsv
        python3 "$here/examples/quickstart/folders.py" "$data" --out "$captions"
    fi
    arguments+=(--images "$data" --captions "$captions" --class-depth 1 --class-minimum 5)
else
    python3 "$here/examples/quickstart/openclipart.py" --out "$out/captions.tsv"
    arguments+=(--images /usr/share/openclipart/png --captions "$out/captions.tsv" --retrieval "$out/retrieval.tsv"
        --class-depth 2)
fi
exec "$here/build/quickstart/examples/quickstart" --out "$out" "${arguments[@]}"
