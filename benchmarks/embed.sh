#!/usr/bin/env bash
# Pictures to embeddings, end to end: tandem embed beside open_clip with a DataLoader.
#   benchmarks/embed.sh [--model NAME] [--pictures N] [--rounds N] [--threads N]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
tests/parity/venv.sh
cmake --preset release >/dev/null
cmake --build --preset release --target example_tandem
exec .venv-parity/bin/python benchmarks/embed.py "$@"
