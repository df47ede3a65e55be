#!/usr/bin/env bash
# Makes .venv-parity at the repository root with the packages of requirements.txt. Does nothing where it is up to date.
# PYTHON names the interpreter (3.11 or later; default python3).
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
venv="$(cd "$here/../.." && pwd)/.venv-parity"
stamp="$venv/requirements.installed"

if [[ -x "$venv/bin/python" ]] && cmp -s "$here/requirements.txt" "$stamp"; then
    echo "$venv is up to date"
    exit 0
fi

rm -rf "$venv"
"${PYTHON:-python3}" -m venv "$venv" || {
    echo "venv.sh: could not make $venv; on Debian install python3-venv" >&2
    exit 1
}
install() { "$venv/bin/pip" install --quiet --disable-pip-version-check --no-deps -r /dev/stdin; }

grep -v '^nvidia-' "$here/requirements.txt" | install
if ! "$venv/bin/python" -c 'import torch' 2>/dev/null; then
    grep '^nvidia-' "$here/requirements.txt" | install
fi
"$venv/bin/python" -c 'import open_clip, safetensors.torch, transformers'
cp "$here/requirements.txt" "$stamp"
echo "$venv is ready"
