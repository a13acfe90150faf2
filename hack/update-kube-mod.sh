#!/usr/bin/env bash
# update-kube-mod.sh [VERSION]: makes test/kube/go.mod follow k8s.io/kubernetes at VERSION, such as v1.36.3, or at the version
# it has. k8s.io/kubernetes finds its staging modules in its own repository, so a module that requires it must replace each
# of them with the one published under the same minor and patch version.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "${KUBE_MODULE_DIR:-$root/test/kube}" # verify-kube-mod.sh has a copy

version=${1:-$(go list -m -f '{{.Version}}' k8s.io/kubernetes)}
if [[ $version != v1.* ]]; then
	echo "update-kube-mod: want a version such as v1.36.3, not $version" >&2
	exit 2
fi
gomod=$(go mod download -json "k8s.io/kubernetes@$version" | sed -n 's/^\t"GoMod": "\(.*\)",$/\1/p')
staging=$(sed -n 's#^\t\(k8s\.io/[a-z-]*\) => \./staging/.*#\1#p' "$gomod")
if [[ -z $staging ]]; then
	echo "update-kube-mod: no staging modules found in $gomod" >&2
	exit 1
fi

edits=("-require=k8s.io/kubernetes@$version")
for module in $(comm -13 <(sort <<<"$staging") <(sed -En 's#^(replace )?\s*(k8s\.io/[a-z-]*) => .*#\2#p' go.mod | sort)); do
	edits+=("-dropreplace=$module") # no longer a staging module
done
for module in $staging; do
	edits+=("-replace=$module=$module@v0.${version#v1.}")
done
go mod edit "${edits[@]}"
go mod tidy
