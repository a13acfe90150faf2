package dataplane

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// HTTPVersion of a monitor's requests, in NSX's words.
type HTTPVersion string

// HTTP versions. The empty one is 1.1.
const (
	HTTP10 HTTPVersion = "HTTP_VERSION_1_0"
	HTTP11 HTTPVersion = "HTTP_VERSION_1_1"
)

// probeHTTP sends one request over a connection of its own and looks at the answer. Redirects are answers like any.
func probeHTTP(ctx context.Context, dial dialFunc, m *Monitor, target netip.AddrPort) error {
	scheme := "http"
	if m.Type == MonitorHTTPS {
		scheme = "https"
	}
	url := fmt.Sprintf("%s://%v/%s", scheme, target, strings.TrimPrefix(m.URL, "/"))
	fail := func(err error) error { return fmt.Errorf("%s %s: %w", m.Method, url, err) }
	request, err := http.NewRequestWithContext(ctx, m.Method, url, nil)
	if err != nil {
		return err
	}
	conn, err := dial(ctx, "tcp", target)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer endWith(ctx, conn)()
	if m.Type == MonitorHTTPS {
		config, err := cmp.Or(m.TLS, &TLS{}).toServer()
		if err != nil {
			return fail(err)
		}
		secure := tls.Client(conn, config)
		if err := secure.HandshakeContext(ctx); err != nil {
			return fail(err)
		}
		conn = secure
	}
	if _, err := conn.Write(m.request(request.URL.RequestURI(), target)); err != nil {
		return fail(err)
	}
	response, err := http.ReadResponse(bufio.NewReader(conn), request)
	if err != nil {
		return fail(err)
	}
	defer response.Body.Close()
	if !slices.Contains(m.StatusCodes, response.StatusCode) {
		return fail(fmt.Errorf("status %d, not one of %v", response.StatusCode, m.StatusCodes))
	}
	if m.ResponseBody == "" {
		return nil
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil {
		return fail(err)
	}
	if !bytes.Contains(body, []byte(m.ResponseBody)) {
		return fail(lacks("the body", m.ResponseBody))
	}
	return nil
}

// request is what the monitor sends, byte for byte: net/http would send no HTTP/1.0.
func (m *Monitor) request(uri string, target netip.AddrPort) []byte {
	header, version := http.Header{"User-Agent": {"nsx-lb-monitor"}, "Connection": {"close"}}, "HTTP/1.0"
	if m.Version != HTTP10 {
		version = "HTTP/1.1"
		header.Set("Host", target.String())
	}
	for name, value := range m.Headers {
		header.Set(name, value)
	}
	if m.Body != "" {
		header.Set("Content-Length", fmt.Sprint(len(m.Body)))
	}
	var request bytes.Buffer
	fmt.Fprintf(&request, "%s %s %s\r\n", m.Method, uri, version)
	header.Write(&request) // a bytes.Buffer takes everything
	request.WriteString("\r\n" + m.Body)
	return request.Bytes()
}
