#!/usr/bin/env bash
# The installed program runs, and its manual pages and completions lie where they are looked for.
#   program.sh PREFIX
set -euo pipefail
cd "$1"
bin/tandem --version
for command in $(bin/tandem --help | sed -n 's/^  \([a-z-]*\) .*/\1/p' | grep -v -e completions -e '^man$'); do
    grep -q "tandem" "share/man/man1/tandem-$command.1" || { echo "no manual page of $command" >&2; exit 1; }
done
grep -q 'SH COMMANDS' share/man/man1/tandem.1
grep -q 'complete .* tandem' share/bash-completion/completions/tandem
head -1 share/zsh/vendor-completions/_tandem | grep -q compdef
