# Sourced by the scripts that build what the tests run. They set `me`, their name in messages, and get:
#   root, bin               the checkout, and where binaries go
#   begin                   a temporary directory in bin, $work, and its end
#   digest FILE...          of the toolchain and of these files and folders: what a binary depends on
#   run TEXT COMMAND...     the command, with a line of progress every ten seconds; output in $work/out
#   kubernetes_flags        the linker's flags for binaries of test/kube, where it is called
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
bin=$root/bin
export CGO_ENABLED=0
total=

begin() {
	mkdir -p "$bin"
	work=$(mktemp -d "$bin/.$me.XXXXXX")
	job=
	trap end EXIT
	trap 'exit 130' INT TERM
}

end() {
	[[ -z $job ]] || kill "$job" 2>/dev/null || true
	rm -rf "$work"
}

digest() {
	{
		go env GOVERSION GOOS GOARCH
		find "$@" -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum
	} | sha256sum
}

# The messages go to a file, one line a package for the go command, and are shown when the command fails.
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
		echo "$me: failed: $*" >&2
		exit 1
	fi
	job=
}

# What "kubectl version", the API server's /version and a node's kubeletVersion say.
kubernetes_flags() {
	local version minor package flags="-s -w"
	version=$(go list -m -f '{{.Version}}' k8s.io/kubernetes)
	minor=${version#v1.}
	for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
		flags+=" -X $package.gitVersion=$version -X $package.gitMajor=1 -X $package.gitMinor=${minor%%.*}"
		flags+=" -X $package.gitCommit=unknown -X $package.gitTreeState=clean -X $package.buildDate=1970-01-01T00:00:00Z"
	done
	echo "$flags"
}
