package lab

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/test/lab/block"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/test/lab/echo"
)

// requestTimeout bounds one request from outside the cluster.
const requestTimeout = 10 * time.Second

// Ports are those that Services of a lab can be reached on in place of 80 and 443, which not every user may bind.
type Ports struct{ HTTP, HTTPS uint16 }

// Privileged says whether these are 80 and 443 themselves.
func (p Ports) Privileged() bool { return p.HTTP == 80 }

// Ports tells which ports can be had on floating IPs.
func (l *Lab) Ports() (Ports, error) {
	listener, err := net.ListenTCP("tcp4", net.TCPAddrFromAddrPort(netip.AddrPortFrom(l.Block.FloatingIP(block.MaxFloatingIPs), 80)))
	switch {
	case errors.Is(err, os.ErrPermission):
		return Ports{HTTP: 8080, HTTPS: 8443}, nil
	case err != nil:
		return Ports{}, fmt.Errorf("port 80 of a floating IP: %w", err)
	}
	return Ports{HTTP: 80, HTTPS: 443}, listener.Close()
}

// HTTPClient is the i-th client from outside the cluster, from 1 to block.MaxClients. It makes a connection for each
// request, so that each is balanced, and takes any certificate.
func (l *Lab) HTTPClient(i int) *http.Client {
	d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(l.Block.Client(i), 0))}
	return &http.Client{Timeout: requestTimeout, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext:       d.DialContext,
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true}, // pods' certificates are self-signed
	}}
}

// HTTPGet asks a URL as the first client and returns what a pod answered.
func (l *Lab) HTTPGet(ctx context.Context, url string) (echo.Answer, error) {
	return HTTPGetAs(ctx, l.HTTPClient(1), url)
}

// HTTPGetAs asks a URL as a client and returns what a pod answered.
func HTTPGetAs(ctx context.Context, client *http.Client, url string) (echo.Answer, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return echo.Answer{}, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return echo.Answer{}, err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return echo.Answer{}, fmt.Errorf("GET %s: %w", url, err)
	}
	if resp.StatusCode != http.StatusOK {
		return echo.Answer{}, fmt.Errorf("GET %s: %s", url, resp.Status)
	}
	return echo.Parse(string(body))
}

// Program is the path of a program that users type: kubectl is the lab's own, if it was built, else the machine's.
func (l *Lab) Program(name string) (string, error) {
	if own := filepath.Join(l.options.BinDir, name); name == "kubectl" {
		if _, err := os.Stat(own); err == nil {
			return own, nil
		}
	}
	return exec.LookPath(name)
}
