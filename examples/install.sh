#!/usr/bin/env bash
# Builds the program `tandem` and installs it, with its manual pages and completions.
#   examples/install.sh [--prefix DIR]     default: /usr/local
# What is missing of the packages that it needs is installed first.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
prefix=/usr/local
while (($#)); do
    case "$1" in
        --prefix)
            [[ $# -ge 2 && -n $2 ]] || { echo "install.sh: --prefix needs a folder" >&2; exit 2; }
            prefix=$2
            shift 2
            ;;
        -h | --help)
            sed -n '2,4s/^# //p' "${BASH_SOURCE[0]}"
            exit 0
            ;;
        *)
            echo "install.sh: unknown argument $1 (known: --prefix DIR)" >&2
            exit 2
            ;;
    esac
done
mkdir -p "$prefix"
prefix=$(cd "$prefix" && pwd)
[[ -w $prefix ]] || { echo "install.sh: $prefix cannot be written; name another place with --prefix" >&2; exit 1; }
"$here/.cmake/debian_packages.sh" g++ cmake ninja-build libtbb-dev libxsimd-dev rapidjson-dev nlohmann-json3-dev \
    libjpeg62-turbo-dev libpng-dev libutf8proc-dev zlib1g-dev libwebp-dev libsqlite3-dev libpq-dev libhnswlib-dev libnlopt-dev libexiv2-dev libmicrohttpd-dev pkg-config
cd "$here"
cmake --preset user >/dev/null
cmake --build --preset user
cmake --install build/user --component program --prefix "$prefix" >/dev/null
"$prefix/bin/tandem" --version
echo "installed: $prefix/bin/tandem; tandem --help lists what it does"
