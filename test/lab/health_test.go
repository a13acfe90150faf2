package lab_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsx"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/test/lab"
)

// TestHealth asks the controller's process, with the framework's own server, authentication and authorization, how it is:
// alive whatever becomes of NSX, ready only while NSX answers; and has it audit on demand.
func TestHealth(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a whole cluster")
	}
	t.Setenv("TMPDIR", t.TempDir())
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	l, err := lab.Start(ctx, lab.Options{Nodes: 2})
	if err != nil {
		t.Fatal(err)
	}
	defer wantClosed(t, l)

	// The controller's certificate is one that it has made for itself.
	insecure := &tls.Config{InsecureSkipVerify: true}
	anybody := &http.Client{Transport: &http.Transport{TLSClientConfig: insecure}}
	defer anybody.CloseIdleConnections()
	admin := administrator(t, l)
	defer admin.CloseIdleConnections()
	ask := func(who *http.Client, method, path string) (int, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(ctx, method, l.Controller.URL()+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := who.Do(req)
		if err != nil {
			return 0, err.Error()
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(b)
	}
	want := func(who *http.Client, method, path string, status int, parts ...string) {
		t.Helper()
		eventually(ctx, t, method+" "+path, func() error {
			got, body := ask(who, method, path)
			if got != status {
				return fmt.Errorf("status %d, want %d: %s", got, status, body)
			}
			for _, p := range parts {
				if !strings.Contains(body, p) {
					return fmt.Errorf("no %q in %s", p, body)
				}
			}
			return nil
		})
	}
	all := []string{"nsx", "inventory", "nodes", "writes", "vcenter"}
	passed := func(failing string) (lines []string) {
		for _, c := range all {
			if c == failing {
				lines = append(lines, "[-]"+c+" failed: reason withheld")
			} else {
				lines = append(lines, "[+]"+c+" ok")
			}
		}
		return lines
	}

	want(anybody, "GET", "/readyz?verbose", 200, passed("")...)
	want(anybody, "GET", "/livez?verbose", 200, "[+]leaderElection ok", "[+]nsxt-watchdog ok")
	want(anybody, "GET", "/healthz", 200, "ok")
	want(anybody, "GET", "/readyz/nsx", 403)
	want(admin, "GET", "/readyz/nsx", 200, "ok")
	want(anybody, "GET", "/metrics", 403)
	want(admin, "GET", "/metrics", 200, `nsxt_ready{check="nsx"} 1`, "workqueue_depth", "leader_election_master_status")
	want(admin, "GET", "/configz", 200, "cloudcontrollermanager")

	// On demand: the audit says what somebody has done, and in the end undoes it.
	svc, err := l.Client.CoreV1().Services("default").Create(ctx, &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: "web"},
		Spec:       corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer, Ports: []corev1.ServicePort{{Port: 8080}}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	virtualServer := func() nsxsim.Object {
		for _, vs := range l.NSX.List(nsxsim.KindVirtualServer) {
			if vs.Tags()[nsx.TagServiceUID] == string(svc.UID) {
				return vs
			}
		}
		return nil
	}
	eventually(ctx, t, "the Service has an address", func() error {
		svc, err = l.Client.CoreV1().Services("default").Get(ctx, "web", metav1.GetOptions{})
		if err == nil && len(svc.Status.LoadBalancer.Ingress) == 0 {
			err = fmt.Errorf("it has none")
		}
		return err
	})
	if _, err := l.NSX.As("somebody").Update(nsxsim.KindVirtualServer, virtualServer().ID(), func(o nsxsim.Object) { o["enabled"] = false }); err != nil {
		t.Fatal(err)
	}
	want(anybody, "POST", "/audit", 403)
	want(admin, "GET", "/audit", 405)
	for _, step := range []struct {
		mode, action string
		enabled      bool
	}{{"Report", "report", false}, {"Repair", "repair", true}} {
		status, body := ask(admin, "POST", "/audit?mode="+step.mode)
		var answer struct {
			Found []struct{ Action, Kind, Service, LastModifiedBy string }
		}
		if err := json.Unmarshal([]byte(body), &answer); err != nil || status != 200 || len(answer.Found) != 1 {
			t.Fatalf("%s: status %d, %v: %s", step.mode, status, err, body)
		}
		if f := answer.Found[0]; f.Action != step.action || f.Kind != "virtual_server" || f.Service != "default/web" || f.LastModifiedBy != "somebody" {
			t.Errorf("%s found %+v", step.mode, f)
		}
		if got := virtualServer()["enabled"]; got != step.enabled {
			t.Errorf("after a %s, the virtual server's enabled is %v", step.mode, got)
		}
	}
	want(admin, "GET", "/metrics", 200, `nsxt_audit_actions_total{action="repair",kind="virtual_server"} 1`, "nsxt_audit_last_success_timestamp_seconds")
	eventually(ctx, t, "an event names who it was", func() error {
		events, err := l.Client.CoreV1().Events("default").List(ctx, metav1.ListOptions{FieldSelector: "involvedObject.name=web,reason=Drift"})
		if err != nil {
			return err
		}
		for _, e := range events.Items {
			if strings.Contains(e.Message, `last modified by "somebody"`) {
				return nil
			}
		}
		return fmt.Errorf("%d events, none of which does", len(events.Items))
	})

	// NSX is down, and back.
	heal, err := l.NSX.Faults().Add(nsxsim.Rule{Status: 503})
	if err != nil {
		t.Fatal(err)
	}
	if status, _ := ask(admin, "POST", "/audit"); status != 500 {
		t.Errorf("an audit without NSX answers with status %d", status)
	}
	want(anybody, "GET", "/readyz", 500, passed("nsx")...)
	want(admin, "GET", "/readyz/nsx", 500, "no call has been answered since")
	want(anybody, "GET", "/readyz?exclude=nsx", 200, "ok")
	want(anybody, "GET", "/livez", 200, "ok")
	want(admin, "GET", "/metrics", 200, `nsxt_ready{check="nsx"} 0`)
	heal()
	want(anybody, "GET", "/readyz?verbose", 200, passed("")...)
}

// administrator is a client that presents the cluster administrator's certificate or token to the controller.
func administrator(t *testing.T, l *lab.Lab) *http.Client {
	t.Helper()
	c := rest.CopyConfig(l.Config)
	c.TLSClientConfig.Insecure, c.TLSClientConfig.CAData, c.TLSClientConfig.CAFile = true, nil, ""
	client, err := rest.HTTPClientFor(c)
	if err != nil {
		t.Fatal(err)
	}
	return client
}
