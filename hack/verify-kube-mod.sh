#!/usr/bin/env bash
# Fails when test/kube/go.mod or go.sum is not what update-kube-mod.sh makes of it.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
cp -r "$root/test/kube/." "$copy"
KUBE_MODULE_DIR=$copy "$root/hack/update-kube-mod.sh"
for file in go.mod go.sum; do
	if ! diff -u "$root/test/kube/$file" "$copy/$file"; then
		echo "verify-kube-mod: test/kube/$file is out of date: run hack/update-kube-mod.sh" >&2
		exit 1
	fi
done
