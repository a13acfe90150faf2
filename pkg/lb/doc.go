// Package lb is the heart of the controller: what a Service of type LoadBalancer should have in NSX, what of it differs
// from what is there, and when that is brought about.
//
//   - Desired turns a Service and its class into a Frontend; Diff turns a Frontend and what is observed into intents.
//     Both are pure.
//   - NodeSet decides which Nodes get traffic, from their conditions and the time.
//   - Engine puts them together: it serialises what happens to one Service, applies intents through an nsx.Backend,
//     writes the node set, and says when to try again.
//
// The package talks to neither NSX nor Kubernetes: the former is behind nsx.Backend, the latter calls Engine and gives it
// Services and Nodes.
package lb
