package dataplane

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// probe checks one target once, the way the monitor says. It returns nil if the target is well.
func probe(ctx context.Context, dial dialFunc, m *Monitor, target netip.AddrPort) error {
	ctx, cancel := context.WithTimeout(ctx, m.Timeout)
	defer cancel()
	var err error
	switch m.Type {
	case MonitorHTTP:
		err = probeHTTP(ctx, dial, m, "http", target)
	case MonitorHTTPS:
		err = probeHTTP(ctx, dial, m, "https", target)
	case MonitorTCP:
		err = probeTCP(ctx, dial, target)
	case MonitorUDP:
		err = probeUDP(ctx, dial, m, target)
	default:
		err = fmt.Errorf("monitor type %q: %w", m.Type, ErrInvalid)
	}
	if err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fmt.Errorf("%s %v: no answer within %v", m.Type, target, m.Timeout)
	}
	return err
}

// dialFunc connects to a target from the load balancer's address.
type dialFunc func(ctx context.Context, network string, target netip.AddrPort) (net.Conn, error)

func probeTCP(ctx context.Context, dial dialFunc, target netip.AddrPort) error {
	conn, err := dial(ctx, "tcp", target)
	if err != nil {
		return err
	}
	// A reset, not a FIN: the ports of frequent probes shall not pile up in TIME_WAIT.
	reset(conn)
	return nil
}

func probeUDP(ctx context.Context, dial dialFunc, m *Monitor, target netip.AddrPort) error {
	conn, err := dial(ctx, "udp", target)
	if err != nil {
		return err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if _, err := io.WriteString(conn, m.Send); err != nil {
		return err
	}
	answer := make([]byte, maxDatagram)
	n, err := conn.Read(answer)
	if err != nil {
		return err
	}
	if !bytes.Contains(answer[:n], []byte(m.Receive)) {
		return fmt.Errorf("UDP %v: the answer lacks %q", target, m.Receive)
	}
	return nil
}

func probeHTTP(ctx context.Context, dial dialFunc, m *Monitor, scheme string, target netip.AddrPort) error {
	url := fmt.Sprintf("%s://%v/%s", scheme, target, strings.TrimPrefix(m.URL, "/"))
	req, err := http.NewRequestWithContext(ctx, m.Method, url, strings.NewReader(m.Body))
	if err != nil {
		return err
	}
	req.Header.Set("User-Agent", "nsx-lb-monitor")
	for name, value := range m.Headers {
		req.Header.Set(name, value)
		if http.CanonicalHeaderKey(name) == "Host" {
			req.Host = value
		}
	}
	transport := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx, "tcp", target) },
		// As NSX with its default, server_auth IGNORE: nodes serve their health with certificates of their own.
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true},
		DisableKeepAlives: true,
	}
	// RoundTrip follows no redirects: a redirect is an answer with its own status code.
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return fmt.Errorf("%s %s: %w", m.Method, url, err)
	}
	defer resp.Body.Close()
	if !slices.Contains(m.StatusCodes, resp.StatusCode) {
		return fmt.Errorf("%s %s: status %d, not one of %v", m.Method, url, resp.StatusCode, m.StatusCodes)
	}
	if m.ResponseBody == "" {
		return nil
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil {
		return fmt.Errorf("%s %s: %w", m.Method, url, err)
	}
	if !bytes.Contains(body, []byte(m.ResponseBody)) {
		return fmt.Errorf("%s %s: the body lacks %q", m.Method, url, m.ResponseBody)
	}
	return nil
}
