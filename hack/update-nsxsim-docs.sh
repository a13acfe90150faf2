#!/usr/bin/env bash
# Writes the flags of nsxsim into docs/reference/nsxsim.md, between the two comments there; with a file name, writes the page
# to that file instead.
set -euo pipefail
cd "$(dirname "$0")/.."

page=docs/reference/nsxsim.md
new=$(mktemp)
trap 'rm -f "$new"' EXIT
go run ./cmd/nsxsim --help | sed '1,/^Flags:$/d' | awk '
	FNR == NR { flags = flags $0 "\n"; next }
	/^<!-- end of flags/ { inside = 0 }
	!inside { print }
	/^<!-- flags/ { inside = 1; printf "```\n%s```\n", flags }
' - "$page" >"$new"
cat "$new" >"${1:-$page}"
