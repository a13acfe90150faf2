#!/usr/bin/env bash
# Writes docs/reference/configuration.md from the types in pkg/config.
set -euo pipefail
cd "$(dirname "$0")/.."

page=docs/reference/configuration.md
new=$(mktemp)
trap 'rm -f "$new"' EXIT
go run ./pkg/config/internal/gendoc >"$new"
mkdir -p "$(dirname "$page")"
cat "$new" >"$page"
