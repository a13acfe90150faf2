#!/usr/bin/env bash
# Fails if docs/reference/nsxsim.md does not have the flags and endpoints of nsxsim.
set -euo pipefail
cd "$(dirname "$0")/.."

page=docs/reference/nsxsim.md
new=$(mktemp)
trap 'rm -f "$new"' EXIT
hack/update-nsxsim-docs.sh "$new"
if ! diff -u --label "$page" --label "$page, as it should be" "$page" "$new"; then
	echo >&2 "$page is out of date: run hack/update-nsxsim-docs.sh"
	exit 1
fi
