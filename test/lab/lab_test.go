package lab_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	cloudproviderapi "k8s.io/cloud-provider/api"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/test/lab"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/test/lab/scenarios"
)

// TestLab runs two labs side by side: a Service of type LoadBalancer works in both, nodes come and go, and nothing is
// left of them at the end.
func TestLab(t *testing.T) {
	if testing.Short() {
		t.Skip("starts whole clusters")
	}
	t.Setenv("TMPDIR", t.TempDir()) // other labs may follow on the same blocks
	// After the labs are closed.
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()

	const size = 2
	var labs [size]*lab.Lab
	var starting errgroup.Group
	for i := range labs {
		starting.Go(func() (err error) {
			labs[i], err = lab.Start(ctx, lab.Options{Nodes: 2})
			return err
		})
	}
	err := starting.Wait()
	defer func() {
		for _, l := range labs {
			if l != nil {
				wantClosed(t, l)
			}
		}
	}()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range labs[0].Parts() {
		t.Logf("%s up after %.1f s, %d MiB", p.Name, p.Took.Seconds(), p.Memory>>20)
	}

	rows, err := scenarios.Matching("3")
	if err != nil || len(rows) != 1 {
		t.Fatalf("scenarios %v, %v", rows, err)
	}
	var playing errgroup.Group
	for _, l := range labs {
		playing.Go(func() error {
			r := rows[0].Play(ctx, l)
			if r.Err != nil {
				return fmt.Errorf("%w\n%s", r.Err, r.Transcript)
			}
			t.Logf("on %s: %s", l.Block, r.Seen)
			return l.Err()
		})
	}
	if err := playing.Wait(); err != nil {
		t.Fatal(err)
	}
	nodesComeAndGo(ctx, t, labs[0])

	// The manifests give the controller every right that it asked for.
	for _, l := range labs {
		log, err := os.ReadFile(l.Controller.Log())
		if err != nil {
			t.Fatal(err)
		}
		if lines := regexp.MustCompile(`(?mi)^.*forbidden.*$`).FindAllString(string(log), 3); len(lines) > 0 {
			t.Errorf("the controller was refused: %q", lines)
		}
	}
}

// nodesComeAndGo has the controller initialize a node, mark one whose VM is off, and delete one whose VM is gone.
func nodesComeAndGo(ctx context.Context, t *testing.T, l *lab.Lab) {
	t.Helper()
	name, err := l.AddNode(ctx, 3)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.AwaitNodes(ctx); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	if err := l.PowerOff(name); err != nil {
		t.Fatal(err)
	}
	eventually(ctx, t, name+" is marked as shut down", func() error {
		n, err := l.Client.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		for _, taint := range n.Spec.Taints {
			if taint.Key == cloudproviderapi.TaintNodeShutdown {
				return nil
			}
		}
		return fmt.Errorf("its taints are %v", n.Spec.Taints)
	})
	if err := l.PowerOn(ctx, name); err != nil {
		t.Fatal(err)
	}
	eventually(ctx, t, name+" is back", func() error {
		n, err := l.Client.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
		if err == nil && len(n.Spec.Taints) > 0 {
			err = fmt.Errorf("its taints are %v", n.Spec.Taints)
		}
		return err
	})
	if err := l.RemoveNode(name); err != nil {
		t.Fatal(err)
	}
	eventually(ctx, t, name+" is deleted with its VM", func() error {
		_, err := l.Client.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(err):
			return nil
		case err == nil:
			err = errors.New("it is still there")
		}
		return err
	})
}

// wantClosed closes a lab and checks that nothing of it is left.
func wantClosed(t *testing.T, l *lab.Lab) {
	t.Helper()
	// The test's context has ended when this is deferred.
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	if err := l.Close(ctx); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(l.Dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the directory is left: %v", err)
	}
}

func eventually(ctx context.Context, t *testing.T, what string, check func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for {
		err := check()
		if err == nil {
			return
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			t.Fatalf("%s: %v", what, err)
		}
	}
}
