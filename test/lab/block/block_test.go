package block_test

import (
	"bufio"
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"testing"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/test/lab/block"
)

func TestTwoLabsNeverMeet(t *testing.T) {
	a, err := block.Take()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = a.Release() }()
	b, err := block.Take()
	if err != nil {
		t.Fatal(err)
	}
	if a.Prefix().Overlaps(b.Prefix()) {
		t.Fatalf("both labs got %s", a)
	}
	_ = b.Release()
}

// takeLast takes one of the last blocks: labs take the first ones, and other runs of this test begin elsewhere.
func takeLast() (*block.Block, int, error) {
	for n := block.Last - os.Getpid()%50; ; n-- {
		if b, err := block.TakeNumber(n); !errors.Is(err, block.ErrTaken) {
			return b, n, err
		}
	}
}

func TestBlockIsTakenOnceAtATime(t *testing.T) {
	b, n, err := takeLast()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := block.TakeNumber(n); !errors.Is(err, block.ErrTaken) {
		t.Fatalf("taking a taken block: %v, want ErrTaken", err)
	}
	if err := b.Release(); err != nil {
		t.Fatal(err)
	}
	again, err := block.TakeNumber(n)
	if err != nil {
		t.Fatalf("a released block cannot be taken: %v", err)
	}
	_ = again.Release()
	for _, n := range []int{block.First - 1, block.Last + 1} {
		if _, err := block.TakeNumber(n); err == nil {
			t.Errorf("block %d was taken", n)
		}
	}
}

// holder takes a block, prints its number and waits to be killed, when this test binary runs as a child.
const holderEnv = "BLOCK_TEST_HOLD"

func TestMain(m *testing.M) {
	if os.Getenv(holderEnv) != "" {
		b, _, err := takeLast()
		if err != nil {
			panic(err)
		}
		os.Stdout.WriteString(b.String() + "\n")
		_, _ = bufio.NewReader(os.Stdin).ReadByte()
		return
	}
	os.Exit(m.Run())
}

func TestBlockOfKilledProcessIsFree(t *testing.T) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), holderEnv+"=1")
	if _, err := cmd.StdinPipe(); err != nil { // kept open: the child waits for it to end
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	prefix := netip.MustParsePrefix(line[:len(line)-1])
	number := int(prefix.Addr().As4()[1])
	if _, err := block.TakeNumber(number); !errors.Is(err, block.ErrTaken) {
		t.Errorf("taking the child's block: %v, want ErrTaken", err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // killed: always an error
	b, err := block.TakeNumber(number)
	if err != nil {
		t.Fatalf("the block of a killed process: %v", err)
	}
	_ = b.Release()
}

func TestAddressesOfABlockAreDistinct(t *testing.T) {
	b, err := block.Take()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = b.Release() }()
	owner := map[netip.Addr]string{}
	claim := func(a netip.Addr, who string) {
		t.Helper()
		if !b.Prefix().Contains(a) {
			t.Errorf("%s %s is outside the block %s", who, a, b)
		}
		if other, taken := owner[a]; taken {
			t.Errorf("%s is both %s and %s", a, other, who)
		}
		owner[a] = who
	}
	claim(b.SNAT(), "SNAT")
	claim(b.Controller(), "controller")
	for i := 1; i <= block.MaxNodes; i++ {
		claim(b.Node(i), "node")
		if !b.Nodes().Contains(b.Node(i)) {
			t.Errorf("node %s is outside %s", b.Node(i), b.Nodes())
		}
		if b.Pods(i).Overlaps(b.ClusterIPs()) {
			t.Errorf("pods of node %d, %s, overlap the cluster IPs, %s", i, b.Pods(i), b.ClusterIPs())
		}
	}
	for i := 1; i <= block.MaxFloatingIPs; i++ {
		claim(b.FloatingIP(i), "floating IP")
		claim(b.SpareIP(i), "spare IP")
	}
	for i := 1; i <= block.MaxClients; i++ {
		claim(b.Client(i), "client")
	}
}
