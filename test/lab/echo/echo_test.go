package echo_test

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"go.uber.org/goleak"
	certutil "k8s.io/client-go/util/cert"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/test/lab/echo"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	who      = echo.Identity{Pod: "default/web-1", Node: "node-2"}
	sameText = cmp.Options{cmpopts.EquateComparable(netip.AddrPort{})}
)

func get(t *testing.T, url string) echo.Answer {
	t.Helper()
	client := &http.Client{Timeout: time.Minute, Transport: &http.Transport{
		DisableKeepAlives: true,
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true},
		DialContext:       (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 7, 7)}}).DialContext,
	}}
	resp, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	a, err := echo.Parse(string(body))
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestHTTPAnswersWhoAskedAndWhoAnswered(t *testing.T) {
	certPEM, keyPEM, err := certutil.GenerateSelfSignedCertKey("lab", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		t.Fatal(err)
	}
	for scheme, certificate := range map[string]*tls.Certificate{"http": nil, "https": &cert} {
		t.Run(scheme, func(t *testing.T) {
			s, err := echo.HTTP(who, certificate)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			a := get(t, scheme+"://"+s.Addr().String()+"/path?delay=1ms")
			if a.Identity != who || a.Data != "GET "+s.Addr().String()+"/path" {
				t.Errorf("answer is %+v", a)
			}
			if got := a.Client.Addr(); got != netip.MustParseAddr("127.0.7.7") {
				t.Errorf("client is %s, want 127.0.7.7", got)
			}
		})
	}
}

func TestUDPAnswersEachDatagram(t *testing.T) {
	s, err := echo.UDP(who)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	conn, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(s.Addr()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	for _, word := range []string{"one", "two"} {
		if _, err := conn.Write([]byte(word)); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 1500)
		n, err := conn.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		got, err := echo.Parse(string(buf[:n]))
		if err != nil {
			t.Fatal(err)
		}
		want := echo.Answer{Identity: who, Client: conn.LocalAddr().(*net.UDPAddr).AddrPort(), Data: word}
		if diff := cmp.Diff(want, got, sameText); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
}

func TestShutdownLetsRequestsInFlightEnd(t *testing.T) {
	s, err := echo.HTTP(who, nil)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	// The answer takes longer than Shutdown takes to begin; a server that cut it would send nothing.
	if _, err := io.WriteString(conn, "GET /?delay=300ms HTTP/1.0\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	waitAccepted(t, s)
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	s.Shutdown(ctx)
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	body, err := io.ReadAll(conn)
	if err != nil || len(body) == 0 {
		t.Errorf("request in flight: %q, %v", body, err)
	}
	if c, err := net.Dial("tcp", s.Addr().String()); err == nil {
		_ = c.Close()
		t.Error("still listening after Shutdown")
	}
}

// waitAccepted returns when the server has taken the connections made so far: it answers them in order.
func waitAccepted(t *testing.T, s *echo.Server) {
	t.Helper()
	get(t, "http://"+s.Addr().String())
}

func TestParseRefusesOtherText(t *testing.T) {
	for _, text := range []string{"", "hello", "pod: a\nnode: b\nclient: nobody\ndata: \n", "pod: a\nnode: b\n"} {
		if a, err := echo.Parse(text); err == nil {
			t.Errorf("Parse(%q) = %+v", text, a)
		}
	}
}
