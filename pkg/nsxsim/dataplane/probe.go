package dataplane

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"time"
)

// maxAnswer is how much of a member's answer a probe looks at.
const maxAnswer = 64 << 10

// errUnprobed is the error of a probe that this host cannot make at all.
var errUnprobed = errors.New("this host cannot probe")

// probe checks one target once, the way the monitor says. It returns nil if the target is well.
func probe(ctx context.Context, dial dialFunc, source netip.Addr, m *Monitor, target netip.AddrPort) error {
	if target.Port() == 0 && m.Type != MonitorICMP {
		return fmt.Errorf("%s %v: neither the member nor the monitor has a port", m.Type, target.Addr())
	}
	ctx, cancel := context.WithTimeout(ctx, m.Timeout)
	defer cancel()
	var err error
	switch m.Type {
	case MonitorHTTP, MonitorHTTPS:
		err = probeHTTP(ctx, dial, m, target)
	case MonitorTCP:
		err = probeTCP(ctx, dial, m, target)
	case MonitorUDP:
		err = probeUDP(ctx, dial, m, target)
	case MonitorICMP:
		err = probeICMP(ctx, source, target.Addr(), m.DataLength)
	default:
		err = fmt.Errorf("monitor type %q: %w", m.Type, ErrInvalid)
	}
	// A dial looks at the clock by itself, and may be over a moment before ctx is.
	if err != nil && (timedOut(ctx.Err()) || timedOut(err)) {
		return fmt.Errorf("%s %v: no answer within %v", m.Type, target, m.Timeout)
	}
	return err
}

func timedOut(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded)
}

// dialFunc connects to a target from the load balancer's address.
type dialFunc func(ctx context.Context, network string, target netip.AddrPort) (net.Conn, error)

// endWith lets all that conn does fail when ctx ends, until stop is called.
func endWith(ctx context.Context, conn interface{ SetDeadline(time.Time) error }) (stop func() bool) {
	return context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
}

// probeTCP connects; then it sends what the monitor has to send, and reads until it has what it expects.
func probeTCP(ctx context.Context, dial dialFunc, m *Monitor, target netip.AddrPort) error {
	conn, err := dial(ctx, "tcp", target)
	if err != nil {
		return err
	}
	// A reset, not a FIN: the ports of frequent probes shall not pile up in TIME_WAIT.
	defer reset(conn)
	defer endWith(ctx, conn)()
	if _, err := io.WriteString(conn, m.Send); err != nil {
		return err
	}
	if m.Receive == "" {
		return nil
	}
	var answer []byte
	buf := make([]byte, 4<<10)
	for len(answer) < maxAnswer {
		n, err := conn.Read(buf)
		answer = append(answer, buf[:n]...)
		switch {
		case bytes.Contains(answer, []byte(m.Receive)):
			return nil
		case errors.Is(err, io.EOF):
			return lacks(fmt.Sprintf("TCP %v: the answer", target), m.Receive)
		case err != nil:
			return err
		}
	}
	return lacks(fmt.Sprintf("TCP %v: the answer", target), m.Receive)
}

func lacks(answer, expected string) error { return fmt.Errorf("%s lacks %q", answer, expected) }

func probeUDP(ctx context.Context, dial dialFunc, m *Monitor, target netip.AddrPort) error {
	conn, err := dial(ctx, "udp", target)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer endWith(ctx, conn)()
	if _, err := io.WriteString(conn, m.Send); err != nil {
		return err
	}
	answer := make([]byte, maxDatagram)
	n, err := conn.Read(answer)
	if err != nil {
		return err
	}
	if !bytes.Contains(answer[:n], []byte(m.Receive)) {
		return lacks(fmt.Sprintf("UDP %v: the answer", target), m.Receive)
	}
	return nil
}
