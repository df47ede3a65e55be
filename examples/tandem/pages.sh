#!/usr/bin/env bash
# Writes the manual pages and completions that the program prints.
#   pages.sh PROGRAM FOLDER
set -euo pipefail
mkdir -p "$2/man1"
"$1" man >"$2/man1/tandem.1"
"$1" --help | sed -n '/^Commands:/,/^  completions/{s/^  \([a-z-]*\) .*/\1/p}' | grep -v completions | while read -r command; do
    "$1" man "$command" >"$2/man1/tandem-$command.1"
done
"$1" completions bash >"$2/tandem.bash"
"$1" completions zsh >"$2/_tandem"
