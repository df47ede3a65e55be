#!/usr/bin/env bash
# Compiles, links and runs a program with the flags of an installed tandem's pkg-config file.
#   pkg_config.sh COMPILER PREFIX NAME SOURCE [FLAGS...]
set -euo pipefail
compiler=$1 prefix=$2 name=$3 source=$4
shift 4
export PKG_CONFIG_PATH
PKG_CONFIG_PATH=$(dirname "$(find "$prefix" -name "$name.pc")")
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
# (A file of constants alone is no program.)
grep -q 'int main' "$source" || echo 'int main() {}' >"$folder/main.cpp"
[[ -e $folder/main.cpp ]] || : >"$folder/main.cpp"
# shellcheck disable=SC2046
"$compiler" "$@" $(pkg-config --cflags "$name") "$source" "$folder/main.cpp" -o "$folder/program" $(pkg-config --libs "$name")
"$folder/program"
