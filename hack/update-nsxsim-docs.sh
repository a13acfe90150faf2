#!/usr/bin/env bash
# Writes the flags and the endpoints of nsxsim into docs/reference/nsxsim.md, between the comments there; with a file name, writes
# the page to that file instead.
set -euo pipefail
cd "$(dirname "$0")/.."

page=docs/reference/nsxsim.md
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
go build -o "$work/nsxsim" ./cmd/nsxsim
"$work/nsxsim" --help | sed '1,/^Flags:$/d' >"$work/flags"
"$work/nsxsim" --endpoints >"$work/endpoints"
awk -v work="$work" '
	/^<!-- end of / { inside = 0 }
	!inside { print }
	/^<!-- (flags|endpoints):/ {
		inside = 1
		file = work "/" substr($2, 1, length($2) - 1)
		print "```"
		while ((getline line <file) > 0) print line
		print "```"
	}
' "$page" >"$work/page"
cat "$work/page" >"${1:-$page}"
