#!/usr/bin/env bash
# Fails if docs/reference/configuration.md is not what the types in pkg/config
# make of it.
set -euo pipefail
cd "$(dirname "$0")/.."

page=docs/reference/configuration.md
if ! go run ./pkg/config/internal/gendoc | diff -u --label "$page" --label "$page, as it should be" "$page" -; then
	echo >&2 "$page is out of date: run hack/update-config-docs.sh"
	exit 1
fi
