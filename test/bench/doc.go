// Package bench puts the controller's load balancing, wired as the product wires it but for Kubernetes, against a
// simulated NSX of any size. Its tests hold what load balancing costs in NSX calls, at the sizes that matter, in the
// virtual time of testing/synctest: they take no longer than the work itself, whatever the rate limit. Package
// test/bench/measure runs the same on the wall clock.
package bench
