#!/usr/bin/env bash
# Fails if docs/reference/service.md is not what the constants and metrics in the source make of it.
set -euo pipefail
cd "$(dirname "$0")/.."

page=docs/reference/service.md
if ! go run ./hack/internal/servicedocs | diff -u --label "$page" --label "$page, as it should be" "$page" -; then
	echo >&2 "$page is out of date: run hack/update-service-docs.sh"
	exit 1
fi
