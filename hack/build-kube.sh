#!/usr/bin/env bash
# Builds bin/kube, a Kubernetes control plane and kubectl in one static binary, from the module in test/kube, and links
# bin/kubectl to it. Does nothing when bin/kube is up to date.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
bin=$root/bin
stamp=$bin/.kube.stamp
cd "$root/test/kube"
export CGO_ENABLED=0

# All that the binary depends on: the sources, this script, and the toolchain.
want=$({
	go env GOVERSION GOOS GOARCH
	{ find . -type f -print0 && printf '%s\0' ../../hack/build-kube.sh; } | LC_ALL=C sort -z | xargs -0 sha256sum
} | sha256sum)
if [[ -x $bin/kube && -e $bin/kubectl && -f $stamp && $(<"$stamp") == "$want" ]]; then
	exit 0
fi

mkdir -p "$bin"
work=$(mktemp -d "$bin/.kube.XXXXXX")
job=
cleanup() {
	[[ -z $job ]] || kill "$job" 2>/dev/null || true
	rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

# run TEXT COMMAND...: runs the command with its messages going to a file, one line a package for the go command, and every
# ten seconds says how far it is. Shows the messages when the command fails.
run() {
	local text=$1 log=$work/log start=$SECONDS next=10 seconds
	shift
	"$@" >"$work/out" 2>"$log" &
	job=$!
	while kill -0 "$job" 2>/dev/null; do
		sleep 1
		seconds=$((SECONDS - start))
		if ((seconds >= next)); then
			next=$((next + 10))
			echo "  ${seconds}s: $text, $(wc -l <"$log")${total:+ of at most $total} done"
		fi
	done
	if ! wait "$job"; then
		job=
		cat "$log" >&2
		echo "build-kube: failed: $*" >&2
		exit 1
	fi
	job=
}

echo "Building bin/kube: Kubernetes from source. The first time takes 3 to 5 minutes on two cores, and some 600 MB of downloads."
total=
run "downloading modules" go list -deps ./cmd/kube
total=$(wc -l <"$work/out")

# What "kubectl version" and the API server's /version say.
version=$(go list -m -f '{{.Version}}' k8s.io/kubernetes)
minor=${version#v1.}
flags="-s -w"
for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
	flags+=" -X $package.gitVersion=$version -X $package.gitMajor=1 -X $package.gitMinor=${minor%%.*}"
	flags+=" -X $package.gitCommit=unknown -X $package.gitTreeState=clean -X $package.buildDate=1970-01-01T00:00:00Z"
done

start=$SECONDS
run "compiling packages" go build -v -trimpath -buildvcs=false -ldflags "$flags" -o "$work/kube" ./cmd/kube
mv -f "$work/kube" "$bin/kube"
ln -sf kube "$bin/kubectl"
printf '%s\n' "$want" >"$stamp"
echo "Built bin/kube, Kubernetes $version, in $((SECONDS - start)) s: $(($(wc -c <"$bin/kube") / 1000000)) MB."
