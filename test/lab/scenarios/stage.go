package scenarios

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/test/lab"
)

// Stage is where a scenario is played: a namespace of its own, a working directory with the examples, a kubectl. Its
// methods end the scenario at the first thing that is not as it must be.
type Stage struct {
	*lab.Lab
	ctx       context.Context
	ports     lab.Ports
	namespace string
	dir       string
	// env of commands: KUBECONFIG names the namespace.
	env []string

	before nsxState // when the scenario began
	writes int      // to NSX, until then

	// clients ends what goes on beside the scenario, running counts it.
	clients    context.Context
	endClients context.CancelFunc
	running    sync.WaitGroup

	failure    error
	seen       []string
	transcript strings.Builder
}

func newStage(ctx context.Context, l *lab.Lab, namespace string) (*Stage, error) {
	s := &Stage{Lab: l, ctx: ctx, namespace: namespace, dir: filepath.Join(l.Dir, namespace)}
	var err error
	if s.ports, err = l.Ports(); err != nil {
		return nil, err
	}
	if err := l.WriteExamples(s.dir); err != nil {
		return nil, err
	}
	kubeconfig := filepath.Join(s.dir, "kubeconfig")
	cfg, err := clientcmd.LoadFromFile(l.Kubeconfig())
	if err != nil {
		return nil, err
	}
	cfg.Contexts[cfg.CurrentContext].Namespace = namespace
	if err := clientcmd.WriteToFile(*cfg, kubeconfig); err != nil {
		return nil, err
	}
	// What kubectl remembers of an API server goes by its address, and each lab's has a port of its own.
	s.env = append(os.Environ(), "KUBECONFIG="+kubeconfig, "KUBECACHEDIR="+filepath.Join(l.Dir, "kubectl-cache"), "TERM=dumb")
	_, err = l.Client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}, metav1.CreateOptions{})
	if err != nil {
		return nil, err
	}
	s.before, s.writes = stateOf(l.NSX.Sim), writesOf(l.NSX.Sim)
	s.clients, s.endClients = context.WithCancel(ctx)
	return s, nil
}

// sendClientsHome ends what goes on beside the scenario.
func (s *Stage) sendClientsHome() {
	s.endClients()
	s.running.Wait()
}

// strike takes away what the scenario made, and waits until no trace is left in NSX.
func (s *Stage) strike() {
	if s.failure != nil {
		s.describe()
	}
	// The scenario's own time may be over.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.ctx), time.Minute)
	defer cancel()
	s.ctx = ctx
	services := s.Client.CoreV1().Services(s.namespace)
	list, err := services.List(ctx, metav1.ListOptions{})
	s.need(err)
	for _, svc := range list.Items {
		s.need(services.Delete(ctx, svc.Name, metav1.DeleteOptions{}))
	}
	s.eventually("every Service of the scenario is gone", 30*time.Second, func() error {
		list, err := services.List(ctx, metav1.ListOptions{})
		if err == nil && len(list.Items) > 0 {
			err = fmt.Errorf("%d are left", len(list.Items))
		}
		return err
	})
	s.noTrace()
	// Its pods may take their time.
	now := int64(0)
	s.need(s.Client.CoreV1().Pods(s.namespace).DeleteCollection(ctx, metav1.DeleteOptions{GracePeriodSeconds: &now}, metav1.ListOptions{}))
	s.need(s.Client.CoreV1().Namespaces().Delete(ctx, s.namespace, metav1.DeleteOptions{}))
}

// describe adds to the transcript what helps to understand a failure.
func (s *Stage) describe() {
	for _, what := range []string{"pods -o wide", "services -o wide", "endpointslices", "events"} {
		out, err := s.command("kubectl", append([]string{"get"}, strings.Fields(what)...)...)
		if err != nil {
			out = err.Error()
		}
		fmt.Fprintln(&s.transcript, out)
	}
}

// saw adds to the account of what was seen.
func (s *Stage) saw(format string, args ...any) {
	s.seen = append(s.seen, fmt.Sprintf(format, args...))
}

// eventually waits until check returns nil, and returns how long that took.
func (s *Stage) eventually(what string, within time.Duration, check func() error) time.Duration {
	began := time.Now()
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for {
		err := check()
		took := time.Since(began)
		if err == nil {
			return took
		}
		if took > within {
			s.fail("%s: not within %v: %w", what, within, err)
		}
		select {
		case <-ticker.C:
		case <-s.ctx.Done():
			s.fail("%s: %w: %w", what, context.Cause(s.ctx), err)
		}
	}
}

// never watches for a while that check goes on to return nil.
func (s *Stage) never(what string, while time.Duration, check func() error) {
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for end := time.Now().Add(while); time.Now().Before(end); {
		if err := check(); err != nil {
			s.fail("%s: %w", what, err)
		}
		select {
		case <-ticker.C:
		case <-s.ctx.Done():
			s.fail("%s: %w", what, context.Cause(s.ctx))
		}
	}
}

// kubectl types a command, which must succeed, and returns its output.
func (s *Stage) kubectl(args ...string) string {
	out, err := s.command("kubectl", args...)
	s.need(err)
	return out
}

// curl types a command, which must succeed, and returns its output.
func (s *Stage) curl(args ...string) string {
	out, err := s.command("curl", append([]string{"-sS", "--max-time", "10"}, args...)...)
	s.need(err)
	return out
}

// command runs a program in the working directory.
func (s *Stage) command(program string, args ...string) (string, error) {
	path, err := s.Program(program)
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(s.ctx, path, args...)
	cmd.Dir, cmd.Env = s.dir, s.env
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Run()
	fmt.Fprintf(&s.transcript, "$ %s %s\n%s%s", program, quoted(args), out.String(), errs.String())
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return "", fmt.Errorf("%s %s: %w: %s", program, quoted(args), err, strings.TrimSpace(errs.String()))
	}
	return out.String(), err
}

// quoted writes arguments as one types them.
func quoted(args []string) string {
	words := make([]string, len(args))
	for i, a := range args {
		words[i] = a
		if strings.ContainsAny(a, " \t\n\"{}$&;()<>|*") || a == "" {
			words[i] = "'" + a + "'"
		}
	}
	return strings.Join(words, " ")
}
