// Package nsxsim simulates an NSX-T manager: the Manager API (/api/v1) and the
// Policy API (/policy/api/v1) as a load balancer controller uses them, what
// govmomi's simulator is for vCenter. Intents of the Policy API are realised in
// objects of the Manager API, so that all that is told of these holds for both.
//
// It owns a store of JSON documents by kind and the rules by which a real manager
// takes, refuses and changes them: validation, defaults, references in both
// directions, revisions, uniqueness, capacity, owners, IP pools with their release
// delay, paging, searches, sessions and limits. Fields that it knows nothing of are kept. It
// fails on demand (Faults), tells what it was asked (Journal), and is filled from
// files (Inventory). It knows no socket but the one it is told to listen on: the
// traffic of virtual servers is package dataplane's, which Options.DataPlane joins
// to it.
//
// A test starts one and asks it what came of the requests:
//
//	sim := nsxsim.Start(t, nsxsim.Options{})
//	tier1 := nsxsim.Must(sim.AddTier1("tier-1"))
//	lb := nsxsim.Must(sim.AddLBService("lb", "SMALL", tier1.ID()))
//	pool := nsxsim.Must(sim.AddIPPool("vips", "192.168.100.0/24", "192.168.100.10-192.168.100.20"))
//	// ... run a client against sim.URL, sim.CA, nsxsim.DefaultUsername, nsxsim.DefaultPassword
//	for _, vs := range sim.List(nsxsim.KindVirtualServer) { ... }
//	sim.Journal().Count("PUT /loadbalancer/services/{id}")
//
// Where real managers differ, or no reference settles what they do, Quirks choose.
package nsxsim
