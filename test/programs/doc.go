// Package programs is for harnesses that run what make has built: it finds the programs, and starts, watches, logs and ends
// them as child processes.
//
//	p, err := programs.Command{Name: "nsxsim", Args: []string{bin + "/nsxsim", "--addr=..."}, Log: dir + "/nsxsim.log"}.Start()
//	...
//	p.Err()      // nil as long as it runs, else how it ended, with the end of its log
//	p.Stop(ctx)  // SIGTERM, and SIGKILL when ctx ends
//
// It owns the processes, each until it is gone, and the goroutine that waits for it. A child never outlives this process,
// however that ends, and the terminal's Ctrl-C is not for it. What a program is for, when it is ready and whether it is
// started again is its harness' business.
package programs
