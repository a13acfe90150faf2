package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/test/lab"
)

// supervise is how often the children are looked after.
const supervise = time.Second

func newUpCommand() *cobra.Command {
	var demo bool
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Start a cluster and keep it until Ctrl-C",
		Args:  cobra.NoArgs,
	}
	o := bindOptions(cmd.Flags())
	cmd.Flags().BoolVar(&demo, "demo", false, "make a Deployment and a Service of type LoadBalancer, and ask it")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return up(cmd.Context(), cmd.OutOrStdout(), *o, demo) }
	return cmd
}

// up runs a lab until the context ends, which is no error.
func up(ctx context.Context, out io.Writer, o lab.Options, demo bool) (err error) {
	l, err := startLab(ctx, out, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeLab(ctx, out, l)) }()
	examples := filepath.Join(l.Dir, "examples")
	if err := l.WriteExamples(examples); err != nil {
		return err
	}
	if err := introduce(out, l, examples); err != nil {
		return err
	}
	if demo {
		if err := demonstrate(ctx, out, l, examples); err != nil && ctx.Err() == nil {
			return fmt.Errorf("demo: %w", err)
		}
	}
	say(out, "\nCtrl-C ends it all.")
	return watch(ctx, out, l)
}

// introduce prints where everything is and what to try.
func introduce(out io.Writer, l *lab.Lab, examples string) error {
	ports, err := l.Ports()
	if err != nil {
		return err
	}
	at := "http://EXTERNAL-IP"
	if !ports.Privileged() {
		at = fmt.Sprintf("http://EXTERNAL-IP:%d", ports.HTTP)
	}
	kubectl := "kubectl"
	if _, err := exec.LookPath(kubectl); err != nil {
		if kubectl, err = l.Program(kubectl); err != nil {
			return err
		}
	}
	say(out, `
  export KUBECONFIG=%s

  NSX        %s  user %s, password %s
             its objects: curl -k -u '%[3]s:%[4]s' %[2]s/_nsxsim/state
             what it was asked: curl -k -u '%[3]s:%[4]s' %[2]s/_nsxsim/journal
  vCenter    %[5]s
  cloud config and logs  %[6]s

To try, in another terminal:
  %[7]s get nodes -o wide
  %[7]s apply -f %[9]s/nginx.yaml -f %[9]s/service-loadbalancer.yaml
  %[7]s get service nginx-svc
  curl %[8]s`,
		l.Kubeconfig(), l.NSX.URL, nsxsim.DefaultUsername, nsxsim.DefaultPassword, l.VCenter.URL(), l.Dir,
		kubectl, at, examples)
	if !ports.Privileged() {
		say(out, "\nThis user may not listen on ports 80 and 443: use %d and %d for Services, as the examples there do.", ports.HTTP, ports.HTTPS)
	}
	return nil
}

// demonstrate makes a Service of type LoadBalancer and asks it.
func demonstrate(ctx context.Context, out io.Writer, l *lab.Lab, examples string) error {
	say(out, "\nA Deployment with 2 replicas and a Service of type LoadBalancer:")
	show := func(program string, args ...string) error {
		path, err := l.Program(program)
		if err != nil {
			return err
		}
		say(out, "\n$ %s %s", program, strings.Join(args, " "))
		cmd := exec.CommandContext(ctx, path, args...)
		cmd.Dir, cmd.Env = examples, append(os.Environ(), "KUBECONFIG="+l.Kubeconfig())
		cmd.Stdout, cmd.Stderr = out, out
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("%s: %w", program, err)
		}
		return nil
	}
	if err := show("kubectl", "apply", "-f", "nginx.yaml", "-f", "service-loadbalancer.yaml"); err != nil {
		return err
	}
	began := time.Now()
	url, err := reachable(ctx, l, "nginx-svc")
	if err != nil {
		return err
	}
	say(out, "\nIt had its EXTERNAL-IP, and answered, after %.1f s.", time.Since(began).Seconds())
	if err := show("kubectl", "get", "service", "nginx-svc"); err != nil {
		return err
	}
	for range 2 {
		if _, err := exec.LookPath("curl"); err == nil {
			if err := show("curl", "-sS", url); err != nil {
				return err
			}
			continue
		}
		answer, err := l.HTTPGet(ctx, url)
		if err != nil {
			return err
		}
		say(out, "\nGET %s\n%s", url, answer)
	}
	return nil
}

// reachable waits until a Service has its EXTERNAL-IP and answers there.
func reachable(ctx context.Context, l *lab.Lab, name string) (url string, err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var last error
	err = wait.PollUntilContextCancel(ctx, 50*time.Millisecond, true, func(ctx context.Context) (bool, error) {
		svc, err := l.Client.CoreV1().Services(metav1.NamespaceDefault).Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return false, err
		}
		if len(svc.Status.LoadBalancer.Ingress) == 0 {
			last = errors.New("EXTERNAL-IP is <pending>")
			return false, nil
		}
		url = "http://" + svc.Status.LoadBalancer.Ingress[0].IP
		if port := svc.Spec.Ports[0].Port; port != 80 {
			url += fmt.Sprintf(":%d", port)
		}
		_, last = l.HTTPGet(ctx, url)
		return last == nil, nil
	})
	if err != nil {
		return "", fmt.Errorf("waiting for Service %s: %w", name, errors.Join(err, last))
	}
	return url, nil
}

// watch looks after the children until the context ends: a controller that ends by itself is started again, as a
// kubelet does.
func watch(ctx context.Context, out io.Writer, l *lab.Lab) error {
	ticker := time.NewTicker(supervise)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			say(out, "")
			return nil
		case <-ticker.C:
		}
		err := l.Err()
		if errors.Is(err, lab.ErrControllerEnded) {
			say(out, "%v\nThe controller is started again.", err)
			err = l.Controller.Start()
		}
		if err != nil {
			return err
		}
	}
}
