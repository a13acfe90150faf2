package controlplane

import (
	"context"

	"k8s.io/kubernetes/cmd/kube-scheduler/app"
	"k8s.io/kubernetes/cmd/kube-scheduler/app/options"
	"k8s.io/kubernetes/pkg/scheduler"
)

// newScheduler prepares kube-scheduler.
func newScheduler(o Options) (component, error) {
	opts := options.NewOptions()
	err := parseFlags("kube-scheduler", *opts.Flags, []string{
		"--kube-api-burst=400",
		"--kube-api-qps=200",
		"--kubeconfig=" + schedulerKubeconfig,
		"--leader-elect=false",
		"--secure-port=0",
	}, o.SchedulerArgs)
	if err != nil {
		return component{}, err
	}
	made := make(chan *scheduler.Scheduler, 1)
	return component{
		name: "scheduler",
		run: func(ctx context.Context) error {
			config, s, err := app.Setup(ctx, opts)
			if err != nil {
				return err
			}
			made <- s
			return app.Run(ctx, config, s)
		},
		// The scheduler goes to work when it has seen all that exists.
		ready: func(ctx context.Context) error {
			select {
			case s := <-made:
				return s.WaitForHandlersSync(ctx)
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		},
	}, nil
}
