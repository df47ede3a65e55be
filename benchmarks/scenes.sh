#!/usr/bin/env bash
# Where phrases are, and what questions are answered: on scenes put together from Open Clip Art drawings that the quickstart's model
# was not trained on, whose transparent ground is the true mask.
#   benchmarks/scenes.sh [--scenes N] [--seed N] [--windows N] [--weights PATH]      default: 200 scenes, 2 windows, ./quickstart
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
scenes=200 seed=0 windows=2 weights=$here/quickstart
while (($#)); do
    case "$1" in
        --scenes | --seed | --windows | --weights)
            [[ $# -ge 2 ]] || { echo "scenes.sh: $1 needs a value" >&2; exit 2; }
            declare "${1#--}=$2"
            shift 2
            ;;
        -h | --help) sed -n '2,4s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
        *) echo "scenes.sh: unknown argument $1 (known: --scenes, --seed, --windows, --weights)" >&2; exit 2 ;;
    esac
done
[[ -f $here/quickstart/model.safetensors ]] || "$here/examples/quickstart.sh"
"$here/.cmake/debian_packages.sh" openclipart-png python3
"$here/examples/install.sh" --prefix "$here/build/installed" >/dev/null
list=$(mktemp)
trap 'rm -f "$list"' EXIT
# The label of a drawing is the last of the two folders that it lies in, as the quickstart's classes have it.
python3 - "$here/examples/quickstart" /usr/share/openclipart/png >"$list" <<'END'
import pathlib
import sys

sys.path.insert(0, sys.argv[1])
from openclipart import class_name, folder_class, held_out

root = pathlib.Path(sys.argv[2])
paths = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.png"))
folders = {}
for path in paths:
    if folder := folder_class(path):
        folders.setdefault(folder, []).append(path)
for folder, inside in sorted(folders.items()):
    if len(inside) >= 30:
        for path in filter(held_out, inside):
            print(f"{root / path}\t{class_name(folder)}")
END
tandem=$here/build/installed/bin/tandem
"$tandem" segment --report "$list" --scenes "$scenes" --seed "$seed" --windows "$windows" --weights "$weights"
"$tandem" ask --report "$list" --scenes "$scenes" --seed "$seed" --weights "$weights"
