#!/usr/bin/env bash
# Makes .venv-parity at the repository root with the packages of requirements.txt. Does nothing where it is up to date.
# PYTHON names the interpreter (3.11 or later; default python3).
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
exec "$here/../../.cmake/venv.sh" .venv-parity "$here/requirements.txt" 'open_clip, timm, safetensors.torch, transformers'
