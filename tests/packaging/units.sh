#!/usr/bin/env bash
# The single header in two units, and what must not link.
#   units.sh COMPILER SOURCE_FOLDER SCRATCH_FOLDER
set -euo pipefail
compiler=$1 root=$2 scratch=$3
mkdir -p "$scratch"
compile() { "$compiler" -std=c++20 -O1 -I"$root/single_include" "$@"; }
link() { "$compiler" "$@" -o "$scratch/program" -ltbb -ljpeg -lpng -lutf8proc -lz; }
packaging=$root/tests/packaging
echo '#include <tandem/tandem.hpp>' >"$scratch/definitions.cpp"
compile -DTANDEM_IMPLEMENTATION -c "$scratch/definitions.cpp" -o "$scratch/definitions.o" &
compile -DTANDEM_COMPILED -c "$packaging/units.cpp" -o "$scratch/declares.o"
compile -DTANDEM_COMPILED -DWITH_ANOTHER_UNIT -c "$packaging/units.cpp" -o "$scratch/with_other.o"
"$compiler" -std=c++20 -O1 -I"$root/include" -c "$packaging/header_only_unit.cpp" -o "$scratch/header_only.o"
wait
link "$scratch/declares.o" "$scratch/definitions.o"
"$scratch/program"
if link "$scratch/declares.o" 2>"$scratch/log"; then
    echo "a unit that sees declarations links without the definitions" >&2
    exit 1
fi
if link "$scratch/with_other.o" "$scratch/definitions.o" "$scratch/header_only.o" 2>"$scratch/log"; then
    echo "a header-only unit links with one that is compiled otherwise" >&2
    exit 1
fi
grep -q every_unit_is_header_only_or_every_unit_is_compiled "$scratch/log" || { cat "$scratch/log" >&2; exit 1; }
