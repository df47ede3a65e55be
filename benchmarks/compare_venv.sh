#!/usr/bin/env bash
# Makes .venv-compare at the repository root with the packages of compare_requirements.txt. Does nothing where it is up to
# date. PYTHON names the interpreter (3.11 or later; default python3).
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
venv="$(cd "$here/.." && pwd)/.venv-compare"
stamp="$venv/requirements.installed"
list="$here/compare_requirements.txt"
if [[ -x "$venv/bin/python" ]] && cmp -s "$list" "$stamp"; then exit 0; fi

rm -rf "$venv"
"${PYTHON:-python3}" -m venv "$venv" || {
    echo "compare_venv.sh: could not make $venv; on Debian install python3-venv" >&2
    exit 1
}
install() { "$venv/bin/pip" install --quiet --disable-pip-version-check --no-deps -r /dev/stdin; }
grep -v '^nvidia-' "$list" | install
if ! "$venv/bin/python" -c 'import torch' 2>/dev/null; then
    grep '^nvidia-' "$list" | install
fi
"$venv/bin/python" -c 'import nncf, onnx, onnxruntime, onnxscript, open_clip, openvino, safetensors.torch, torch'
cp "$list" "$stamp"
echo "$venv is ready"
