// Package integration tests the controller's heart (engine, backend, transport) against the NSX simulator, in one
// process and without Kubernetes: what operations cost, and what faults and crashes leave behind.
package integration
