// Package world is one NSX with all that goes on around it, in one process and in fake time: the simulator, a foreign user
// on it, and clusters, each with its Services and Nodes, what the framework's service controller does for them, and the
// controller's real engine, Manager-API backend and transport.
//
// Play runs a world in a testing/synctest bubble: time stands still while anything runs and jumps when everything waits,
// so that hours of audits pass in milliseconds, and each request takes a time of its own, computed from the seed and the
// request, so that the same play brings the same order of requests. There are no sockets: a process of the controller
// talks to the simulator through an http.RoundTripper, on which Cluster.Fail lets calls fail and processes die.
//
// While a play runs, every write that NSX serves is held against the running invariants (watch.go); World.Rest lets time
// pass until nothing is written any more, and World.Check holds what is there then against what should be (check.go).
// What does not hold is a violation, which Play returns; the world never fails a test by itself.
//
// The package decides nothing about what is played: that is up to the suites of package chaos.
package world
