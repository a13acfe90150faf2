package scenarios

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/names"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/test/lab"
)

// pending is row 6.
func pending(s *Stage) {
	s.kubectl("apply", "-f", "nginx.yaml")
	s.applyWithClass("no-pool", "no-pool")
	s.isPending("no-pool", `class "no-pool" has no IP pools`)
	s.saw("without a pool: <pending>, and why")

	// A pool of one address, for two Services.
	s.applyWithClass("first", "tiny")
	var ip string
	s.eventually("EXTERNAL-IP of first", ipWithin, func() error {
		if ip = addressOf(s.service("first")); ip != s.Block.SpareIP(1).String() {
			return fmt.Errorf("it is %q: %s", ip, s.eventsOf("first"))
		}
		return nil
	})
	s.applyWithClass("second", "tiny")
	s.isPending("second", `no free IPv4 address in class "tiny": `)
	s.saw("with an empty pool: <pending>, and why")

	// The administrator of NSX makes the pool larger.
	s.growTinyPool()
	took := s.eventually("EXTERNAL-IP once the pool has one", 45*time.Second, func() error {
		if got := addressOf(s.service("second")); got != s.Block.SpareIP(2).String() {
			return fmt.Errorf("it is %q: %s", got, s.eventsOf("second"))
		}
		return nil
	})
	s.answers(url("http", s.Block.SpareIP(2).String(), int(s.ports.HTTP)), 4)
	s.saw("its IP %.0f s after the pool had one", took.Seconds())
}

// applyWithClass makes a Service for the Deployment nginx that asks for a class.
func (s *Stage) applyWithClass(name, class string) {
	text, err := os.ReadFile(filepath.Join(s.dir, "service-loadbalancer.yaml"))
	s.need(err)
	edited := strings.Replace(string(text), "  name: nginx-svc\n",
		fmt.Sprintf("  name: %s\n  annotations:\n    %s: %s\n", name, names.AnnotationClass, class), 1)
	s.need(os.WriteFile(filepath.Join(s.dir, name+".yaml"), []byte(edited), 0o600))
	s.kubectl("apply", "-f", name+".yaml")
}

// isPending checks that a Service has no EXTERNAL-IP, and that a warning says why.
func (s *Stage) isPending(name, reason string) {
	s.eventually("a warning that says why", ipWithin, func() error {
		if events := s.eventsOf(name); !strings.Contains(events, reason) || !strings.Contains(events, "Warning ") {
			return fmt.Errorf("want %q, there is: %s", reason, events)
		}
		return nil
	})
	if out := s.kubectl("describe", "service", name); !strings.Contains(out, reason) {
		s.fail("kubectl describe does not say %q:\n%s", reason, out)
	}
	if got := s.column(s.kubectl("get", "service", name), "EXTERNAL-IP"); got != "<pending>" {
		s.fail("EXTERNAL-IP is %s, want <pending>", got)
	}
}

// growTinyPool gives the tiny pool its second address.
func (s *Stage) growTinyPool() {
	for _, pool := range s.NSX.List(nsxsim.KindIPPool) {
		if pool.String("display_name") != lab.PoolTiny {
			continue
		}
		_, err := s.NSX.As(nsxsim.DefaultUsername).Update(nsxsim.KindIPPool, pool.ID(), func(o nsxsim.Object) {
			subnet := o["subnets"].([]any)[0].(map[string]any)
			subnet["allocation_ranges"] = []any{map[string]any{"start": s.Block.SpareIP(1).String(), "end": s.Block.SpareIP(2).String()}}
		})
		s.need(err)
		return
	}
	s.fail("NSX has no IP pool %s", lab.PoolTiny)
}
