#!/usr/bin/env bash
# Builds bin/kube, a Kubernetes control plane and kubectl in one static binary, from the module in test/kube, and links
# bin/kubectl to it. Does nothing when bin/kube is up to date.
set -euo pipefail

me=build-kube
. "$(dirname "${BASH_SOURCE[0]}")/internal/build.sh"
stamp=$bin/.kube.stamp
cd "$root/test/kube"

want=$(digest . "$root/hack/build-kube.sh" "$root/hack/internal/build.sh")
if [[ -x $bin/kube && -e $bin/kubectl && -f $stamp && $(<"$stamp") == "$want" ]]; then
	exit 0
fi

begin
echo "Building bin/kube: Kubernetes from source. The first time takes 3 to 5 minutes on two cores, and some 600 MB of downloads."
run "downloading modules" go list -deps ./cmd/kube
total=$(wc -l <"$work/out")
flags=$(kubernetes_flags)

start=$SECONDS
run "compiling packages" go build -v -trimpath -buildvcs=false -ldflags "$flags" -o "$work/kube" ./cmd/kube
mv -f "$work/kube" "$bin/kube"
ln -sf kube "$bin/kubectl"
printf '%s\n' "$want" >"$stamp"
version=$(go list -m -f '{{.Version}}' k8s.io/kubernetes)
echo "Built bin/kube, Kubernetes $version, in $((SECONDS - start)) s: $(($(wc -c <"$bin/kube") / 1000000)) MB."
