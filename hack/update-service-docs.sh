#!/usr/bin/env bash
# Writes docs/reference/service.md from the constants of annotations, events and tags, and from the metrics.
set -euo pipefail
cd "$(dirname "$0")/.."

page=docs/reference/service.md
new=$(mktemp)
trap 'rm -f "$new"' EXIT
go run ./hack/internal/servicedocs >"$new"
mkdir -p "$(dirname "$page")"
cat "$new" >"$page"
