package vcsim_test

import (
	"context"
	"fmt"
	"net/netip"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/vcsim"
)

// A vCenter with three nodes over two zones. A client is given server.URL, server.CA and server.Credentials.
func Example() {
	inventory := vcsim.Generate(2, [][]netip.Addr{
		{netip.MustParseAddr("127.10.0.11")},
		{netip.MustParseAddr("127.10.0.12")},
		{netip.MustParseAddr("127.10.0.13"), netip.MustParseAddr("2001:db8::13")},
	})
	server, err := vcsim.Start(context.Background(), inventory, vcsim.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer server.Close()

	for _, vm := range inventory.VMs() {
		fmt.Println(vm.Name, vm.UUID, vm.Addresses)
	}
	fmt.Println(server.SetPower("node-1", false), server.RemoveVM("node-2"))
	// Output:
	// node-1 9b3b6618-0449-5cf4-ba1a-1bd2727132bc [127.10.0.11]
	// node-3 0640f3b8-6d9e-5272-9f38-4367db13bdfa [127.10.0.13 2001:db8::13]
	// node-2 5dbbf756-2249-5cb9-b9b4-259ca353b226 [127.10.0.12]
	// <nil> <nil>
}
