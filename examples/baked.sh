#!/usr/bin/env bash
# Makes one executable of a trained model, its tokenizer and labels with their embeddings, and asks it about pictures:
#   examples/baked.sh [--labels FILE] [--out FILE] [PICTURE...]
#
#   --labels FILE    a label a line (default: the folders of the pictures that the model was trained on)
#   --out FILE       where the executable goes (default: build/baked/baked)
# The model is the quickstart's, which is trained first where it is not there yet (ten minutes). The executable needs no file beside
# itself; it is for CPUs with the instruction set of this one, and says so on others.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
made=$here/build/baked out="" labels="" pictures=()
while (($#)); do
    case "$1" in
        -h | --help) sed -n '2,8s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
        --labels | --out)
            [[ $# -ge 2 && -n $2 ]] || { echo "baked.sh: $1 needs a value" >&2; exit 2; }
            if [[ $1 == --out ]]; then out=$2; else labels=$2; fi
            shift 2
            ;;
        --*) echo "baked.sh: unknown argument $1; --help lists them" >&2; exit 2 ;;
        *) pictures+=("$1"); shift ;;
    esac
done
[[ -n $out ]] || out=$made/baked
out=$(realpath -m -- "$out")
[[ ! -d $out ]] || { echo "baked.sh: --out $out: expected a file to be made, found a folder" >&2; exit 2; }
[[ -f $here/quickstart/model.safetensors ]] || "$here/examples/quickstart.sh"
"$here/.cmake/debian_packages.sh" g++ cmake ninja-build libtbb-dev libxsimd-dev rapidjson-dev nlohmann-json3-dev libjpeg62-turbo-dev \
    libpng-dev libutf8proc-dev zlib1g-dev
mkdir -p "$made"
if [[ -z $labels ]]; then
    labels=$made/labels.txt
    [[ -f $here/quickstart/captions.tsv ]] || { echo "baked.sh: --labels FILE is needed, as quickstart/captions.tsv is not there" >&2; exit 2; }
    # The last folder of every picture's path, if five pictures or more lie there.
    cut -f1 "$here/quickstart/captions.tsv" | sort -u | awk -F/ 'NF > 1 { ++count[$(NF - 1)] }
        END { for (name in count) if (count[name] >= 5) { gsub("_", " ", name); print name } }' | sort >"$labels"
fi
options=(-DTANDEM_BUILD_TESTS=OFF -DTANDEM_BUILD_PROGRAM=OFF -DTANDEM_BUILD_BENCHMARKS=OFF -DTANDEM_BAKED="$made")
cmake --preset release -S "$here" "${options[@]}" -B "$made" >/dev/null
cmake --build "$made" --target example_bake -- --quiet
"$made/examples/baked/bake" "$here/quickstart" "$labels" "$made"
cmake --build "$made" --target example_baked -- --quiet
install -D "$made/examples/baked/baked" "$out"
echo "$out: $(stat -c %s "$out") bytes" >&2
((${#pictures[@]} == 0)) || "$out" "${pictures[@]}"
