package dataplane_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"time"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim/dataplane"
)

func Example() {
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "hello") }))
	defer web.Close()
	member := netip.MustParseAddrPort(web.Listener.Addr().String())
	vip := netip.MustParseAddr("127.8.0.1")

	plane := dataplane.New(dataplane.Options{SNATAddress: netip.MustParseAddr("127.8.0.2")})
	defer plane.Close()
	err := plane.Apply(context.Background(), dataplane.Config{VirtualServers: []dataplane.VirtualServer{{
		ID: "web", Address: vip, Protocol: dataplane.TCP,
		Ports: []dataplane.PortMap{{Listen: member.Port()}},
		Pool: &dataplane.Pool{
			ID:       "nodes",
			Members:  []dataplane.Member{{Address: member.Addr()}},
			Monitors: []dataplane.Monitor{{ID: "healthz", Type: dataplane.MonitorHTTP, URL: "/healthz", Port: member.Port()}},
		},
	}}})
	if err != nil {
		fmt.Println(err)
		return
	}
	for deadline := time.Now().Add(10 * time.Second); plane.Status().VirtualServers[0].State != dataplane.StateUp; {
		if time.Now().After(deadline) {
			fmt.Printf("%+v\n", plane.Status())
			return
		}
		time.Sleep(time.Millisecond)
	}
	resp, err := http.Get("http://" + netip.AddrPortFrom(vip, member.Port()).String())
	if err != nil {
		fmt.Println(err)
		return
	}
	defer http.DefaultClient.CloseIdleConnections()
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	fmt.Println(string(body))
	// Output: hello
}
