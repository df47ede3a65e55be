#!/usr/bin/env bash
# Trains a CLIP on English captions, fine-tunes it on 75 languages, and says what it understands of each before and after.
#   examples/multilingual/multilingual.sh [--out DIR] [--seed S] [--epochs FIRST,SECOND]
#
#   --out DIR       where pictures, runs and report.html go (default: multilingual); the same command goes on where it was killed
#   --seed S        of weights, order and crops (default: 0)
#   --epochs N,M    of the two stages (default: 30,40: ten minutes on two cores, with what is built and downloaded once)
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
out=$here/multilingual seed=0 epochs=30,40
while (($#)); do
    case "$1" in
        -h | --help)
            sed -n '2,7s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
            exit 0
            ;;
        --out | --seed | --epochs)
            [[ $# -ge 2 && -n $2 ]] || { echo "multilingual.sh: $1 needs a value" >&2; exit 2; }
            case "$1" in
                --out) out=$2 ;;
                --seed) [[ $2 =~ ^[0-9]+$ ]] || { echo "multilingual.sh: --seed: expected a whole number, found $2" >&2; exit 2; }; seed=$2 ;;
                --epochs) [[ $2 =~ ^[1-9][0-9]*,[1-9][0-9]*$ ]] || { echo "multilingual.sh: --epochs: expected two numbers as 30,40, found $2" >&2; exit 2; }; epochs=$2 ;;
            esac
            shift 2
            ;;
        *)
            echo "multilingual.sh: unknown argument $1; --help lists them" >&2
            exit 2
            ;;
    esac
done
mkdir -p "$out"
out=$(cd "$out" && pwd)

{
    "$here/.cmake/debian_packages.sh" g++ cmake ninja-build python3 python3-fonttools python3-pil libtbb-dev libxsimd-dev rapidjson-dev nlohmann-json3-dev libjpeg62-turbo-dev \
        libpng-dev libutf8proc-dev zlib1g-dev libwebp-dev openclipart-png openclipart-svg tuxpaint-stamps-default fonts-noto-color-emoji unicode-cldr-core
    cmake --preset release -S "$here" -B "$here/build/train" -DTANDEM_BUILD_TESTS=OFF -DTANDEM_BUILD_PROGRAM=OFF -DTANDEM_BUILD_BENCHMARKS=OFF >/dev/null
    cmake --build "$here/build/train" --target example_train example_recall -- --quiet
    # Debian's python3, which has Debian's fonttools.
    /usr/bin/python3 "$here/examples/quickstart/openclipart.py" --out "$out/clipart.tsv" --retrieval "$out/clipart_retrieval.tsv"
    /usr/bin/python3 "$here/examples/multilingual/pictures.py" --out "$out" --clipart "$out/clipart.tsv"
} >&2

train() {
    "$here/build/train/examples/train/train" --logs "$out/runs" --seed "$seed" --resume latest --precision amp_bf16 --batch-size 128 --wd 0.1 \
        --aug-cfg 'scale=(0.6,1.0)' 'ratio=(0.8,1.25)' --log-every-n-steps 50 --save-frequency 0 "$@" >&2
}
measure() {
    "$here/build/train/examples/multilingual/recall" "$out/runs/$1" "$out"/held-out/*.tsv >"$out/$1.tsv"
}
# The tokenizer has to spell all languages from the start.
train --name english --train-data "$out/clipart::$out/english" --tokenizer-data "$out/clipart::$out/languages" --lr 1.5e-3 --epochs "${epochs%,*}"
measure english
# Clip art keeps what the image tower knows: half of it an epoch, beside every stamp and emoji twice, each in a language drawn at random.
train --name languages --pretrained "$out/runs/english" --train-data "$out/clipart::$out/languages" --train-data-upsampling-factors 0.5::2 --lr 1e-3 --epochs "${epochs#*,}"
measure languages
exec /usr/bin/python3 "$here/examples/multilingual/report.py" --before "$out/english.tsv" --after "$out/languages.tsv" --out "$out/report.html"
