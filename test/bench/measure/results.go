package main

// Results are what one run of the program measured. Times are in seconds.
type Results struct {
	// Machine that it was measured on.
	Machine string
	// Latency of NSX in milliseconds, and its limit of requests a second.
	LatencyMS, NSXRate int
	// Rate is the controller's own limit when Services are created, RestartRate that when it restarts.
	Rate, RestartRate float64
	// Workers ensure Services at the same time.
	Workers int
	Cells   []Cell
}

// Cell is what was measured with one size of a cluster.
type Cell struct {
	Services, Nodes int
	// When it was measured: a date.
	When string
	// Bulk: all Services are created at once. Restart: they are all there, and the controller starts anew.
	Bulk, Restart Phase
	// NodeBusy and NodeIdle are the time from a node's being Ready to its being an ENABLED member, in the midst of the bulk
	// and after the restart.
	NodeBusy, NodeIdle float64
}

// Phase is one run of a controller.
type Phase struct {
	// Seconds from the start until all Services have been ensured.
	Seconds float64
	// CPU time and the peak of memory of the controller's process, in seconds and MiB.
	CPU, PeakMiB float64
	// Calls of NSX, Writes among them, and how many were Throttled.
	Calls, Writes, Throttled int
}
