package scenarios

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// sourceRanges is row 17: who is let in, by what comes and what does not.
func sourceRanges(s *Stage) {
	const name = "nginx-svc"
	s.kubectl("apply", "-f", "nginx.yaml", "-f", "service-loadbalancer.yaml")
	s.endpoints(name, 2)
	ip := s.externalIP(name)
	at := url("http", ip, int(s.ports.HTTP))
	one, two := s.Block.Client(1), s.Block.Client(2)
	s.letsIn(at, 1, 2)

	s.patchRanges(name, "add", netip.PrefixFrom(one, 32).String())
	s.letsIn(at, 1)
	s.curl("--interface", one.String(), at)
	if _, err := s.command("curl", "-sS", "--max-time", "5", "--interface", two.String(), at); err == nil {
		s.fail("curl as %s is answered", two)
	}
	s.saw("only %s gets an answer", one)

	// Another way to write it, and another client.
	s.patchRanges(name, "replace", "198.51.100.0/24", netip.PrefixFrom(two, 32).String())
	s.letsIn(at, 2)
	s.saw("after a change only %s", two)

	s.patchRanges(name, "replace", netip.PrefixFrom(two, 32).String(), "0.0.0.0/0")
	s.letsIn(at, 1, 2)
	s.patchRanges(name, "replace", netip.PrefixFrom(one, 32).String())
	s.letsIn(at, 1)
	s.kubectl("patch", "service", name, "--type=json", "-p", `[{"op":"remove","path":"/spec/loadBalancerSourceRanges"}]`)
	s.letsIn(at, 1, 2)
	s.saw("without ranges both")

	// A Service that has them from the start never lets anybody else in.
	s.kubectl("delete", "service", name)
	s.freed(ip)
	intruder := s.crowdOf(2, 2, at)
	s.applyWithRange(name, ip, netip.PrefixFrom(one, 32).String())
	if got := s.externalIP(name); got != ip {
		s.fail("EXTERNAL-IP is %s, want %s, which was asked for", got, ip)
	}
	s.letsIn(at, 1)
	for _, v := range intruder.GoHome() {
		if v.Err == nil {
			s.fail("%s was answered by %s, which lets in %s alone", v.Client.Addr(), name, one)
		}
	}
	s.saw("a new Service with ranges never answers %s", two)
}

// patchRanges says who is let in.
func (s *Stage) patchRanges(name, op string, ranges ...string) {
	s.kubectl("patch", "service", name, "--type=json", "-p",
		fmt.Sprintf(`[{"op":%q,"path":"/spec/loadBalancerSourceRanges","value":["%s"]}]`, op, strings.Join(ranges, `","`)))
}

// applyWithRange makes a Service for the Deployment nginx that asks for an address and lets in one range.
func (s *Stage) applyWithRange(name, ip, only string) {
	text, err := os.ReadFile(filepath.Join(s.dir, "service-loadbalancer.yaml"))
	s.need(err)
	edited := strings.Replace(string(text), "spec:\n", fmt.Sprintf("spec:\n  loadBalancerIP: %s\n  loadBalancerSourceRanges: [%s]\n", ip, only), 1)
	s.need(os.WriteFile(filepath.Join(s.dir, "restricted.yaml"), []byte(edited), 0o600))
	s.kubectl("apply", "-f", "restricted.yaml")
}

// letsIn waits until just some of the clients 1 and 2 get answers, and then checks that it stays so.
func (s *Stage) letsIn(url string, clients ...int) {
	in := map[int]bool{}
	for _, i := range clients {
		in[i] = true
	}
	check := func() error {
		for i := 1; i <= 2; i++ {
			patience := time.Duration(0) // as long as any request
			if !in[i] {
				patience = time.Second
			}
			v := s.visit(s.ctx, i, url, patience)
			switch {
			case in[i] && v.Err != nil:
				return fmt.Errorf("%s gets no answer: %w", v.Client.Addr(), v.Err)
			case !in[i] && v.Err == nil:
				return fmt.Errorf("%s gets an answer", v.Client.Addr())
			case !in[i] && !keptOut(v.Err):
				return fmt.Errorf("%s gets no answer, but is not kept out: %w", v.Client.Addr(), v.Err)
			}
		}
		return nil
	}
	s.eventually(fmt.Sprintf("%s lets in %v of clients 1 and 2 alone", url, clients), 10*time.Second, check)
	for range 8 {
		s.need(check())
	}
}

// keptOut tells a connection that NSX let no further, dropped or reset, from one that nobody listened for.
func keptOut(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.Is(err, context.DeadlineExceeded) || os.IsTimeout(err)
}
