package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim"
)

// commandEnv makes this binary the command.
const commandEnv = "NSXSIM_TEST_COMMAND"

func TestMain(m *testing.M) {
	if os.Getenv(commandEnv) != "" {
		main()
		return
	}
	goleak.VerifyTestMain(m)
}

// process is the command running in this process.
type process struct {
	t       *testing.T
	url, ca string
	nodes   []string // URLs of the further ones
	stderr  *lockedBuffer
	stop    func() error // as SIGTERM does; gives what the command ends with
}

type lockedBuffer struct {
	mu sync.Mutex
	bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.Write(p)
}

var readyLine = regexp.MustCompile(`^nsxsim is ready: url=(\S+)(?: ca=(\S+))? username=(\S+?)(?: nodes=(\S+))?\n$`)

func start(t *testing.T, args ...string) *process {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	out, in := io.Pipe()
	p := &process{t: t, stderr: &lockedBuffer{}}
	command := newCommand()
	command.SetArgs(args)
	command.SetOut(in)
	command.SetErr(p.stderr)
	ended := make(chan error, 1)
	go func() {
		err := command.ExecuteContext(ctx)
		in.CloseWithError(io.EOF)
		ended <- err
	}()
	p.stop = sync.OnceValue(func() error { cancel(); return <-ended })
	t.Cleanup(func() { _ = p.stop() })
	line, err := bufio.NewReader(out).ReadString('\n')
	found := readyLine.FindStringSubmatch(line)
	if err != nil || found == nil {
		t.Fatalf("the command says %q and ends with %v", line, p.stop())
	}
	p.url, p.ca = found[1], found[2]
	if found[4] != "" {
		p.nodes = strings.Split(found[4], ",")
	}
	return p
}

// get asks the simulator, trusting the authority it told of.
func (p *process) get(path, user, password string) (int, string) {
	p.t.Helper()
	pool := x509.NewCertPool()
	if p.ca != "" {
		text, err := os.ReadFile(p.ca)
		if err != nil {
			p.t.Fatal(err)
		}
		pool.AppendCertsFromPEM(text)
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}}
	defer transport.CloseIdleConnections()
	r, err := http.NewRequest(http.MethodGet, p.url+path, nil)
	if err != nil {
		p.t.Fatal(err)
	}
	r.SetBasicAuth(user, password)
	resp, err := transport.RoundTrip(r)
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

func write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestServesUntilItIsStopped(t *testing.T) {
	p := start(t, "-v", "--nsx-version", "2.5.1")
	if code, body := p.get("/api/v1/node/version", nsxsim.DefaultUsername, nsxsim.DefaultPassword); code != 200 || !strings.Contains(body, "2.5.1") {
		t.Errorf("%d %s", code, body)
	}
	if err := p.stop(); err != nil {
		t.Errorf("it ends with %v", err)
	}
	if _, err := os.Stat(p.ca); !os.IsNotExist(err) {
		t.Errorf("the temporary certificate is left over: %v", err)
	}
	if log := p.stderr.String(); !strings.Contains(log, `method="GET" path="/api/v1/node/version"`) {
		t.Errorf("the request is not logged: %s", log)
	}
}

func TestReleaseNamedInShort(t *testing.T) {
	p := start(t, "--plain", "--nsx-version", "9.0", "--search-delay", "1h")
	get := func(path string) (int, string) { return p.get(path, nsxsim.DefaultUsername, nsxsim.DefaultPassword) }
	if code, body := get("/api/v1/node/version"); code != 200 || !strings.Contains(body, `"9.0.0`) {
		t.Errorf("version: %d %s", code, body)
	}
	if code, body := get("/api/v1/loadbalancer/pools"); code != 404 {
		t.Errorf("pools of the Manager API: %d %s, want 404", code, body)
	}
	if code, body := get("/api/v1/search/query?query=resource_type:EdgeCluster"); code != 200 || !strings.Contains(body, `"result_count":0`) {
		t.Errorf("search before the delay is over: %d %s, want nothing", code, body)
	}
}

// Further nodes serve the same NSX, under the same authority.
func TestNodes(t *testing.T) {
	for _, args := range [][]string{{"--nodes", "3"}, {"--nodes", "3", "--plain"}} {
		p := start(t, args...)
		if len(p.nodes) != 2 || p.nodes[0] == p.nodes[1] {
			t.Fatalf("%v: nodes %v", args, p.nodes)
		}
		var answers []string
		for _, url := range append(p.nodes, p.url) {
			node := *p
			node.url = url
			code, body := node.get("/api/v1/edge-clusters", nsxsim.DefaultUsername, nsxsim.DefaultPassword)
			if code != 200 {
				t.Errorf("%s: %d %s", url, code, body)
			}
			answers = append(answers, body)
		}
		if answers[0] != answers[2] || answers[1] != answers[2] {
			t.Errorf("the nodes differ: %v", answers)
		}
		if err := p.stop(); err != nil {
			t.Error(err)
		}
	}
}

// A request that a fault holds, on whichever node, does not hold up the end.
func TestEndsWhatAFaultHolds(t *testing.T) {
	p := start(t, "--plain", "--nodes", "2", "--max-concurrent", "1", "--faults", write(t, "faults.yaml", "[{method: POST, delay: 1h}]"))
	node := *p
	node.url = p.nodes[0]
	held := make(chan error, 1)
	post := func() (int, error) {
		r, err := http.NewRequest(http.MethodPost, node.url+"/api/v1/loadbalancer/pools", strings.NewReader("{}"))
		if err != nil {
			return 0, err
		}
		r.SetBasicAuth(nsxsim.DefaultUsername, nsxsim.DefaultPassword)
		resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(r)
		if err != nil {
			return 0, err
		}
		return resp.StatusCode, resp.Body.Close()
	}
	go func() {
		status, err := post()
		for status == http.StatusServiceUnavailable { // it met one of those below
			status, err = post()
		}
		held <- err
	}()
	for status := 0; status != http.StatusServiceUnavailable; { // which says that one is held: there may be one at once
		select {
		case err := <-held:
			t.Fatalf("it is not held: %v", err)
		case <-time.After(10 * time.Millisecond):
		}
		status, _ = node.get("/api/v1/loadbalancer/pools", nsxsim.DefaultUsername, nsxsim.DefaultPassword)
	}
	if err := p.stop(); err != nil {
		t.Errorf("it ends with %v", err)
	}
	if err := <-held; err == nil {
		t.Error("what was held got an answer")
	}
}

func TestQuietByDefault(t *testing.T) {
	p := start(t)
	p.get("/api/v1/node/version", "admin", "wrong")
	if err := p.stop(); err != nil {
		t.Error(err)
	}
	if log := p.stderr.String(); log != "" {
		t.Errorf("it says %s", log)
	}
}

func TestInventoryFaultsAndCredentials(t *testing.T) {
	p := start(t, "--username", "ncp", "--password-file", write(t, "password", "from file\n"),
		"--inventory", write(t, "inventory.yaml", "objects: [{kind: LbPool, display_name: mine}]"),
		"--faults", write(t, "faults.yaml", "[{path: /loadbalancer/monitors, status: 503}]"))
	if code, body := p.get("/api/v1/loadbalancer/pools", "ncp", "from file"); code != 200 || !strings.Contains(body, `"mine"`) {
		t.Errorf("the inventory's pool: %d %s", code, body)
	}
	if code, _ := p.get("/api/v1/loadbalancer/monitors", "ncp", "from file"); code != 503 {
		t.Errorf("the fault: %d", code)
	}
	if code, _ := p.get("/api/v1/loadbalancer/pools", nsxsim.DefaultUsername, nsxsim.DefaultPassword); code != 403 {
		t.Errorf("the default user: %d", code)
	}
	if code, _ := p.get("/_nsxsim/journal", "ncp", "from file"); code != 200 {
		t.Errorf("the journal: %d", code)
	}
}

func TestPasswordFromTheEnvironment(t *testing.T) {
	t.Setenv(passwordEnv, "from env")
	if code, _ := start(t, "--plain").get("/api/v1/node/version", "admin", "from env"); code != 200 {
		t.Errorf("the environment's: %d", code)
	}
	if code, _ := start(t, "--plain", "--password", "from flag").get("/api/v1/node/version", "admin", "from flag"); code != 200 {
		t.Errorf("the flag's: %d", code)
	}
}

func TestGivenCertificateAndPathOfTheMadeOne(t *testing.T) {
	cert, ca, err := nsxsim.NewCertificate()
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	var chain []byte
	for _, der := range cert.Certificate {
		chain = append(chain, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	p := start(t, "--tls-cert", write(t, "tls.crt", string(chain)),
		"--tls-key", write(t, "tls.key", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}))))
	if p.ca != "" {
		t.Errorf("it tells of an authority %s that it did not make", p.ca)
	}
	p.ca = write(t, "ca.crt", string(ca))
	if code, _ := p.get("/api/v1/node/version", nsxsim.DefaultUsername, nsxsim.DefaultPassword); code != 200 {
		t.Errorf("with the given certificate: %d", code)
	}

	path := filepath.Join(t.TempDir(), "made.crt")
	made := start(t, "--ca-out", path)
	if made.ca != path {
		t.Errorf("it tells of %s, want %s", made.ca, path)
	}
	if code, _ := made.get("/api/v1/node/version", nsxsim.DefaultUsername, nsxsim.DefaultPassword); code != 200 {
		t.Errorf("with the made certificate: %d", code)
	}
}

func TestFlagsBecomeOptions(t *testing.T) {
	f := flags{quirks: []string{"chosenAddress=ignored", "staleIsConflict", "finalCursor=false"}, dataPlane: "userspace", snatAddress: "127.9.0.1"}
	o, err := f.options()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(nsxsim.Quirks{ChosenAddress: nsxsim.ChosenAddressIgnored, StaleIsConflict: true}, o.Quirks); diff != "" {
		t.Errorf("quirks (-want +got):\n%s", diff)
	}
	if got := o.DataPlane.SNATAddress.String(); got != "127.9.0.1" {
		t.Errorf("SNAT address %s", got)
	}
}

func TestRefusesToStart(t *testing.T) {
	for _, c := range []struct {
		want string
		args []string
	}{
		{"unknown command", []string{"extra"}},
		{"unknown flag", []string{"--frob"}},
		{"unknown field", []string{"--quirk", "frob"}},
		{"chosen address", []string{"--quirk", "chosenAddress=maybe"}},
		{"--snat-address needs --dataplane", []string{"--snat-address", "127.0.0.1"}},
		{"--snat-address", []string{"--dataplane", "--snat-address", "here"}},
		{`one of off, userspace, nftables: got "on"`, []string{"--dataplane=on"}},
		{"exclude each other", []string{"--password", "x", "--password-file", "y"}},
		{"--password-file", []string{"--password-file", "/does/not/exist"}},
		{"NSX version", []string{"--nsx-version", "new"}},
		{"--inventory", []string{"--inventory", "/does/not/exist"}},
		{"object 1 (LbFrob )", []string{"--inventory", write(t, "i.yaml", "objects: [{kind: LbFrob}]")}},
		{"does nothing", []string{"--faults", write(t, "f.yaml", "[{}]")}},
		{"--tls-cert", []string{"--tls-cert", "/does/not/exist"}},
		{"listening", []string{"--addr", "192.0.2.1:1"}},
		{"authority's certificate", []string{"--ca-out", "/does/not/exist/ca.crt"}},
	} {
		command := newCommand()
		command.SetArgs(c.args)
		command.SetOut(io.Discard)
		command.SetErr(io.Discard)
		ctx, cancel := context.WithCancel(context.Background())
		cancel() // lest one that starts runs on
		if err := command.ExecuteContext(ctx); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v: %v, want an error with %q", c.args, err, c.want)
		}
	}
}
