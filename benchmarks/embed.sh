#!/usr/bin/env bash
# Pictures to embeddings, end to end: tandem embed beside open_clip with a DataLoader.
#   benchmarks/embed.sh [--model NAME] [--pictures N] [--rounds N] [--threads N]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
tests/parity/venv.sh
.cmake/debian_packages.sh g++ cmake ninja-build libtbb-dev libxsimd-dev rapidjson-dev nlohmann-json3-dev libjpeg62-turbo-dev \
    libpng-dev libwebp-dev libsqlite3-dev libpq-dev libhnswlib-dev libnlopt-dev libexiv2-dev libmicrohttpd-dev pkg-config libutf8proc-dev zlib1g-dev
cmake --preset user >/dev/null
cmake --build --preset user
exec .venv-parity/bin/python benchmarks/embed.py "$@"
