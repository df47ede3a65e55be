#!/usr/bin/env bash
# Makes the Debian packages libtandem-dev and tandem, and tries both in a clean chroot of Debian 12.
#   .ci/packages.sh [--out DIR] [--no-chroot]     default: build/packages. The chroot needs root and some minutes.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
out=$here/build/packages chroot=yes
while (($#)); do
    case "$1" in
        --out) [[ $# -ge 2 ]] || { echo "packages.sh: --out needs a folder" >&2; exit 2; }; out=$2; shift 2 ;;
        --no-chroot) chroot=no; shift ;;
        -h | --help) sed -n '2,3s/^# //p' "${BASH_SOURCE[0]}"; exit 0 ;;
        *) echo "packages.sh: unknown argument $1 (known: --out DIR, --no-chroot)" >&2; exit 2 ;;
    esac
done
"$here/.cmake/debian_packages.sh" g++ cmake ninja-build dpkg-dev file libtbb-dev libxsimd-dev rapidjson-dev nlohmann-json3-dev \
    libjpeg62-turbo-dev libpng-dev libwebp-dev libsqlite3-dev libpq-dev libhnswlib-dev libnlopt-dev libexiv2-dev libmicrohttpd-dev pkg-config libutf8proc-dev zlib1g-dev
mkdir -p "$out"
out=$(cd "$out" && pwd)
also=""
[[ $(uname -m) != x86_64 ]] || also="avx;avx2;avx512"
cmake -S "$here" --preset user -B "$out/build" -DTANDEM_COMPILED_ALSO_FOR="$also" >/dev/null
cmake --build "$out/build"
(cd "$out/build" && cpack -B "$out" >/dev/null)
packages=("$out"/libtandem-dev_*.deb "$out"/tandem_*.deb)
for package in "${packages[@]}"; do dpkg-deb --info "$package" | grep -E '^ (Package|Version|Depends|Description)'; done
[[ $chroot == yes ]] || exit 0

((EUID == 0)) || { echo "packages.sh: a chroot is made as root; --no-chroot leaves it out" >&2; exit 1; }
"$here/.cmake/debian_packages.sh" debootstrap
# shellcheck source=/dev/null
suite=$(. /etc/os-release && echo "$VERSION_CODENAME")
root=$(mktemp -d)
trap 'rm -rf --one-file-system "$root"' EXIT
# Of the two places where apt's sources stand, one may be missing.
mirror=$(sed -nE 's#^(deb|URIs:)( \[[^]]*\])? *(https?://[^ ]+).*#\3#p' /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null |
    head -1 || true)
debootstrap --variant=minbase "$suite" "$root" ${mirror:+"$mirror"} >/dev/null
cp "${packages[@]}" "$root/tmp/"
cp "$here"/tests/packaging/{core,compiled}.cpp "$root/tmp/"
cp /etc/resolv.conf "$root/etc/"
if [[ -d /etc/apt/apt.conf.d ]]; then cp -r /etc/apt/apt.conf.d/. "$root/etc/apt/apt.conf.d/"; fi
inside() { chroot "$root" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive HOME=/root "$@"; }
inside apt-get update -qq
# The program alone: nothing that compiles comes with it.
inside sh -c 'apt-get install -y -qq --no-install-recommends /tmp/tandem_*.deb' >/dev/null
inside tandem --version
inside tandem describe vit_b_32 | head -3
if inside sh -c 'command -v g++' >/dev/null; then echo "packages.sh: the program needs a compiler" >&2; exit 1; fi
inside sh -c 'apt-get install -y -qq --no-install-recommends g++ pkg-config /tmp/libtandem-dev_*.deb' >/dev/null
for flags in "" -mavx2\ -mfma -march=x86-64-v4; do
    [[ -z $flags || $(uname -m) == x86_64 ]] || continue
    inside sh -c "cd /tmp && echo 'int main() {}' >main.cpp &&
        g++ $flags \$(pkg-config --cflags tandem-compiled) compiled.cpp main.cpp -o compiled \$(pkg-config --libs tandem-compiled)"
done
inside sh -c 'cd /tmp && g++ $(pkg-config --cflags tandem) core.cpp -o core $(pkg-config --libs tandem) && ./core'
echo "both packages install and run in a clean $suite"
