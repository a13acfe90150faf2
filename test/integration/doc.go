// Package integration tests the controller's heart (engine, backend, transport) against the NSX simulator, in one
// process, over HTTPS and without Kubernetes: what audits put right, and the faults that depend on the connection. All other
// faults are package chaos's, what operations cost is package bench's.
package integration
