#!/usr/bin/env bash
# Searches pictures by what they show: builds the program tandem, brings a catalogue of the folders up to date, serves its page.
#   examples/search.sh [DIR...]     default: Open Clip Art
# The model is the quickstart's, which is trained first where it is not there yet (ten minutes). With a checkpoint of your own:
#   examples/install.sh; tandem index DIR --weights PATH; tandem serve
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
for folder in "$@"; do
    case "$folder" in
        -h | --help) sed -n '2,5s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
        *) [[ -d $folder ]] || { echo "search.sh: $folder: no such folder" >&2; exit 2; } ;;
    esac
done
[[ -f $here/quickstart/model.safetensors ]] || "$here/examples/quickstart.sh"
"$here/examples/install.sh" --prefix "$here/build/installed"
arguments=("$@")
if (($# == 0)); then
    "$here/.cmake/debian_packages.sh" openclipart-png
    arguments=(/usr/share/openclipart/png --captions "$here/quickstart/captions.tsv")
fi
tandem=$here/build/installed/bin/tandem
"$tandem" index "${arguments[@]}" --database "$here/build/search.db" --weights "$here/quickstart"
exec "$tandem" serve --database "$here/build/search.db"
