// Package integration tests the controller's heart (engine, backend, transport) against the NSX simulator, in one
// process and without Kubernetes: what faults and crashes leave behind. What operations cost is package bench's.
package integration
