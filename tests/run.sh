#!/usr/bin/env bash
# Runs all tests on a Debian machine: installs what is missing, builds, and ends with ctest's own summary.
#   tests/run.sh [--preset NAME]...     default: release, asan, tsan, neon
# Presets: release debug clang asan tsan neon. They are built one after the other and tested in one run of ctest.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

presets=()
while (($#)); do
    case "$1" in
        --preset)
            [[ $# -ge 2 ]] || { echo "tests/run.sh: --preset needs a name" >&2; exit 2; }
            presets+=("$2")
            shift 2
            ;;
        -h | --help)
            sed -n '2,4s/^# //p' tests/run.sh
            exit 0
            ;;
        *)
            echo "tests/run.sh: unknown argument $1 (known: --preset NAME)" >&2
            exit 2
            ;;
    esac
done
((${#presets[@]})) || presets=(release asan tsan neon)

packages=(g++ clang-19 cmake ninja-build python3 python3-venv libtbb-dev libxsimd-dev libeigen3-dev rapidjson-dev nlohmann-json3-dev
    libjpeg62-turbo-dev libpng-dev libutf8proc-dev zlib1g-dev libwebp-dev
    libsqlite3-dev libpq-dev libhnswlib-dev libarchive-dev libnlopt-dev libopenmpi-dev openmpi-bin libexiv2-dev libmicrohttpd-dev postgresql chromium-driver python3-selenium fonts-dejavu-core pkg-config catch2 libbenchmark-dev doxygen doxygen-awesome-css
    g++-aarch64-linux-gnu qemu-user)
.cmake/debian_packages.sh "${packages[@]}"

# A file that does not compile must not keep the rest from being tested: the test <preset>.build reports it.
jobs=$(nproc)
mkdir -p build
: >build/CTestTestfile.cmake
for preset in "${presets[@]}"; do
    cmake --preset "$preset"
    cmake --build --preset "$preset" --parallel "$jobs" -- -k 0 || true
    echo "subdirs($preset)" >>build/CTestTestfile.cmake
done
exec ctest --test-dir build --output-on-failure --no-tests=error --parallel "$jobs"
