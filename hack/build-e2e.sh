#!/usr/bin/env bash
# Builds into bin/e2e what the end-to-end tests run on nodes and against the cluster, bin/kube aside:
#   kube-node, agnhost, e2e.test                          of Kubernetes, from the module in test/kube
#   containerd, its shim, ctr, runc, cni/*, coredns       from the module in test/runtime
#   images/*.tar                                          the images that the upstream tests name, packed here
# Does nothing for what is up to date. With --check it only tells what is missing on this machine.
set -euo pipefail

me=build-e2e
. "$(dirname "${BASH_SOURCE[0]}")/internal/build.sh"
out=$bin/e2e

# Programs of this machine that go into the agnhost image: what the tests call in pods, and a few to look around.
tools=(dash curl nc wget cat date env hostname ls sleep)

# Everything missing is named at once.
packages=()
need() { # PACKAGE COMMAND...: the package is missing when the command fails
	local package=$1
	shift
	"$@" >/dev/null 2>&1 || packages+=("$package")
}
static_libc() { gcc -static -o /dev/null -x c - <<<'int main(void) { return 0; }'; }
need gcc command -v gcc
need libc6-dev static_libc
need pkg-config command -v pkg-config
need libseccomp-dev pkg-config --exists libseccomp
need dash command -v dash
need curl command -v curl
need wget command -v wget
need netcat-openbsd command -v nc
if ((${#packages[@]} > 0)); then
	echo "build-e2e: missing here; on Debian or Ubuntu: apt-get install --no-install-recommends ${packages[*]}" >&2
	exit 1
fi
[[ ${1:-} != --check ]] || exit 0

begin
mkdir -p "$out/cni" "$out/images"
scripts=("$root/hack/build-e2e.sh" "$root/hack/internal/build.sh")

# fresh PART DIGEST FILE...: whether the files are there and were made of what the digest says
fresh() {
	local stamp=$out/.$1.stamp want=$2 file
	shift 2
	[[ -f $stamp && $(<"$stamp") == "$want" ]] || return 1
	for file; do [[ -e $out/$file ]] || return 1; done
}
# done_with PART DIGEST FILE...: moves what was built into place
done_with() {
	local part=$1 want=$2 file
	shift 2
	rm -f "$out/.$part.stamp"
	for file; do mv -f "$work/$(basename "$file")" "$out/$file"; done
	printf '%s\n' "$want" >"$out/.$part.stamp"
	echo "  $part: $(cd "$out" && du -cm --apparent-size "$@" | tail -1 | cut -f1) MB, $SECONDS s since the start: $*"
}
build() { go build -v -trimpath -buildvcs=false "$@"; }

cd "$root/test/kube"
want=$(digest . "${scripts[@]}")
files=(kube-node agnhost e2e.test)
if ! fresh kube "$want" "${files[@]}"; then
	echo "Building Kubernetes' node components and e2e tests into bin/e2e: 2 to 4 minutes on two cores the first time, after bin/kube."
	run "downloading modules" go list -test -deps ./cmd/kube-node k8s.io/kubernetes/test/e2e
	total=$(wc -l <"$work/out")
	flags=$(kubernetes_flags)
	run "compiling packages" build -ldflags "$flags" -o "$work/" ./cmd/kube-node k8s.io/kubernetes/test/images/agnhost
	run "compiling tests" go test -c -vet=off -trimpath -buildvcs=false -ldflags "$flags" -o "$work/e2e.test" k8s.io/kubernetes/test/e2e
	done_with kube "$want" "${files[@]}"
fi

cd "$root/test/runtime"
want=$(digest . "${scripts[@]}" && pkg-config --modversion libseccomp)
cni=(bridge host-local loopback portmap)
files=(containerd containerd-shim-runc-v2 ctr runc coredns "${cni[@]/#/cni/}")
if ! fresh runtime "$want" "${files[@]}"; then
	echo "Building containerd, runc, CNI plugins and CoreDNS into bin/e2e: 1 to 2 minutes on two cores the first time."
	containerd=github.com/containerd/containerd/v2/cmd
	plugins=github.com/containernetworking/plugins/plugins
	mains=("$containerd/containerd" "$containerd/containerd-shim-runc-v2" "$containerd/ctr" ./cmd/coredns
		"$plugins/main/bridge" "$plugins/ipam/host-local" "$plugins/main/loopback" "$plugins/meta/portmap")
	tags=no_btrfs,no_devmapper,no_zfs,no_tracing
	run "downloading modules" go list -deps -tags "$tags" "${mains[@]}" github.com/opencontainers/runc
	total=$(wc -l <"$work/out")
	run "compiling packages" build -tags "$tags" -ldflags '-s -w' -o "$work/" "${mains[@]}"
	# runc enters namespaces in C, before Go's threads start.
	CGO_ENABLED=1 run "compiling runc" build -tags seccomp -ldflags '-s -w' -o "$work/" github.com/opencontainers/runc
	done_with runtime "$want" "${files[@]}"
fi

cd "$root/test/kube"
paths=()
for tool in "${tools[@]}"; do paths+=("$(command -v "$tool")"); done
want=$(digest cmd/images go.mod "${scripts[@]}" "$out/agnhost" && sha256sum "${paths[@]}")
files=(images/pause.tar images/agnhost.tar images/names.json)
if ! fresh images "$want" "${files[@]}"; then
	source=$(go list -m -f '{{.Dir}}' k8s.io/kubernetes)/build/pause/linux/pause.c
	gcc -Os -static -DVERSION=e2e -o "$work/pause" "$source"
	total=
	run "packing images" go run ./cmd/images -dir "$work" -pause "$work/pause" -agnhost "$out/agnhost" "${paths[@]}"
	done_with images "$want" "${files[@]}"
fi
