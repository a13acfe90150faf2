// Package echo is the program that the pods of a lab run: it answers every request with who answered and who asked.
//
// HTTP, HTTPS and UDP are spoken. The answer is lines of "key: value", for people and for [Parse]. The query parameter
// delay (a Go duration) makes an HTTP answer take that long. A Server listens on a free port of 127.0.0.1 and owns all
// goroutines that serve it.
package echo

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"
)

// Identity is who answers.
type Identity struct {
	Pod  string // namespace/name
	Node string
}

// Answer is what a client is told.
type Answer struct {
	Identity
	Client netip.AddrPort // the client, as the pod sees it
	Data   string         // HTTP: method, host and path; UDP: the datagram
}

// String is the answer as it is sent.
func (a Answer) String() string {
	return fmt.Sprintf("pod: %s\nnode: %s\nclient: %s\ndata: %s\n", a.Pod, a.Node, a.Client, a.Data)
}

// Parse is the reverse of Answer.String.
func Parse(text string) (Answer, error) {
	var a Answer
	fields := map[string]*string{"pod": &a.Pod, "node": &a.Node, "data": &a.Data, "client": new(string)}
	found := 0
	for line := range strings.Lines(text) {
		key, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		if field := fields[key]; ok && field != nil {
			*field = value
			found++
		}
	}
	if found != len(fields) {
		return Answer{}, fmt.Errorf("not an answer of a lab's pod: %q", text)
	}
	client, err := netip.ParseAddrPort(*fields["client"])
	if err != nil {
		return Answer{}, fmt.Errorf("client in the answer of a lab's pod: %w", err)
	}
	a.Client = client
	return a, nil
}

// Server answers on one port.
type Server struct {
	addr netip.AddrPort
	http *http.Server
	udp  net.PacketConn
	done sync.WaitGroup
}

// HTTP starts a Server for HTTP, or for HTTPS if a certificate is given.
func HTTP(who Identity, certificate *tls.Certificate) (*Server, error) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("port of pod %s: %w", who.Pod, err)
	}
	s := &Server{addr: l.Addr().(*net.TCPAddr).AddrPort()}
	s.http = &http.Server{
		Handler:           handler(who),
		ReadHeaderTimeout: 10 * time.Second,
	}
	if certificate != nil {
		l = tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{*certificate}, MinVersion: tls.VersionTLS12})
	}
	s.done.Go(func() { _ = s.http.Serve(l) }) // returns when the server is closed
	return s, nil
}

func handler(who Identity) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if d, err := time.ParseDuration(r.URL.Query().Get("delay")); err == nil {
			select {
			case <-time.After(d):
			case <-r.Context().Done():
				return
			}
		}
		client, err := netip.ParseAddrPort(r.RemoteAddr)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		data := fmt.Sprintf("%s %s%s", r.Method, r.Host, r.URL.Path)
		_, _ = fmt.Fprint(w, Answer{Identity: who, Client: client, Data: data}) // the client may have gone
	})
}

// UDP starts a Server that answers each datagram with one.
func UDP(who Identity) (*Server, error) {
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return nil, fmt.Errorf("port of pod %s: %w", who.Pod, err)
	}
	s := &Server{addr: conn.LocalAddr().(*net.UDPAddr).AddrPort(), udp: conn}
	s.done.Go(func() {
		buf := make([]byte, 64<<10)
		for {
			n, client, err := conn.ReadFromUDPAddrPort(buf)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil {
				continue // an ICMP error for an earlier answer
			}
			answer := Answer{Identity: who, Client: client, Data: strings.TrimSuffix(string(buf[:n]), "\n")}
			_, _ = conn.WriteToUDPAddrPort([]byte(answer.String()), client)
		}
	})
	return s, nil
}

// Addr is where the Server listens.
func (s *Server) Addr() netip.AddrPort { return s.addr }

// Shutdown lets requests in flight end, as long as ctx allows, and cuts the rest.
func (s *Server) Shutdown(ctx context.Context) {
	if s.http != nil {
		_ = s.http.Shutdown(ctx) // what is left is cut below
	}
	s.Close()
}

// Close cuts all connections.
func (s *Server) Close() {
	if s.http != nil {
		_ = s.http.Close()
	} else {
		_ = s.udp.Close()
	}
	s.done.Wait()
}
