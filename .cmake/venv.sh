#!/usr/bin/env bash
# Makes a virtual environment at the repository root with a closed list of packages. Does nothing where it is up to date.
#   venv.sh NAME REQUIREMENTS.txt 'MODULE, ...'      the modules must import afterwards
# PYTHON names the interpreter (3.11 or later; default python3).
set -euo pipefail
venv="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)/$1" list=$2 modules=$3
stamp="$venv/requirements.installed"
if [[ -x "$venv/bin/python" ]] && cmp -s "$list" "$stamp"; then
    echo "$venv is up to date"
    exit 0
fi

rm -rf "$venv"
"${PYTHON:-python3}" -m venv "$venv" || {
    echo "venv.sh: could not make $venv; on Debian install python3-venv" >&2
    exit 1
}
install() { "$venv/bin/pip" install --quiet --disable-pip-version-check --no-deps -r /dev/stdin; }
# The CUDA libraries that PyTorch's wheel links are large, and a CPU-only wheel needs none.
grep -v '^nvidia-' "$list" | install
if grep -q '^nvidia-' "$list" && ! "$venv/bin/python" -c 'import torch' 2>/dev/null; then
    grep '^nvidia-' "$list" | install
fi
"$venv/bin/python" -c "import $modules"
cp "$list" "$stamp"
echo "$venv is ready"
