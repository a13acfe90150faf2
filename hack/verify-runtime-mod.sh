#!/usr/bin/env bash
# Fails when test/runtime/go.mod or go.sum is not what `go mod tidy` makes of it.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../test/runtime"
if ! go mod tidy -diff; then
	echo "verify-runtime-mod: run \"go mod tidy\" in test/runtime" >&2
	exit 1
fi
