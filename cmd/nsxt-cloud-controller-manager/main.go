// Command nsxt-cloud-controller-manager gives Kubernetes clusters on vSphere their load balancers on NSX-T, and their
// Nodes what vCenter knows of them. It wires flags, cloud config and the controllers of k8s.io/cloud-provider.
package main

import (
	"context"
	"fmt"
	"maps"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	cloudprovider "k8s.io/cloud-provider"
	"k8s.io/cloud-provider/app"
	appconfig "k8s.io/cloud-provider/app/config"
	cpnames "k8s.io/cloud-provider/names"
	"k8s.io/cloud-provider/options"
	"k8s.io/component-base/cli"
	cliflag "k8s.io/component-base/cli/flag"
	_ "k8s.io/component-base/logs/json/register"
	"k8s.io/component-base/metrics/legacyregistry"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	"k8s.io/klog/v2"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/cloud"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/config"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/names"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsx/transport"
)

// drainTime is how long calls to NSX that are in flight may take to end when the process is told to.
const drainTime = 10 * time.Second

func main() {
	command, err := newCommand()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(cli.Run(command))
}

// newCommand is the framework's command with our provider, defaults and way of stopping.
func newCommand() (*cobra.Command, error) {
	o, err := options.NewCloudControllerManagerOptions()
	if err != nil {
		return nil, fmt.Errorf("making the command: %w", err)
	}
	controllers := maps.Clone(app.DefaultInitFuncConstructors)
	delete(controllers, cpnames.NodeRouteController) // NSX routes without our help
	controllers[watchdogController] = newWatchdog()

	stop := make(chan struct{})
	started := func(c *appconfig.CompletedConfig, provider *cloud.Cloud) error {
		stopOnSignal(provider, stop)
		return serve(c, provider, stop)
	}
	command := app.NewCloudControllerManagerCommand(o, initializer(started), controllers, cpnames.CCMControllerAliases(), cliflag.NamedFlagSets{}, stop)
	command.Use = "nsxt-cloud-controller-manager"
	command.Long = `nsxt-cloud-controller-manager gives Services of type LoadBalancer a floating IP and virtual servers on NSX-T,
and Nodes their provider ids, addresses, zones and life cycle from vCenter.

It is configured by the file given with --cloud-config.`
	for name, value := range map[string]string{
		"cloud-provider":           names.Provider,
		"concurrent-service-syncs": "64",
		"kube-api-qps":             "200",
		"kube-api-burst":           "400",
		"configure-cloud-routes":   "false",
	} {
		f := command.Flags().Lookup(name)
		if f == nil {
			return nil, fmt.Errorf("making the command: the framework has no flag --%s", name)
		}
		if err := f.Value.Set(value); err != nil {
			return nil, fmt.Errorf("making the command: --%s=%s: %w", name, value, err)
		}
		f.DefValue = value
	}
	return command, nil
}

// initializer makes the Cloud from the config file. The framework gives it no way to return an error.
func initializer(started func(*appconfig.CompletedConfig, *cloud.Cloud) error) app.InitCloudFunc {
	return func(c *appconfig.CompletedConfig) cloudprovider.Interface {
		provider, err := newCloud(c)
		if err == nil {
			err = started(c, provider)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			klog.FlushAndExit(klog.ExitFlushTimeout, 1)
		}
		return provider
	}
}

func newCloud(c *appconfig.CompletedConfig) (*cloud.Cloud, error) {
	path := c.ComponentConfig.KubeCloudShared.CloudProvider.CloudConfigFile
	if path == "" {
		return nil, fmt.Errorf("--cloud-config is required: the path of a file of kind %s", names.ConfigKind)
	}
	cfg, err := config.Load(path)
	if err != nil {
		return nil, err
	}
	metrics := transport.NewMetrics()
	metrics.MustRegister(legacyregistry.MustRegister)
	o := cloud.Options{Config: cfg, Metrics: metrics, Logger: klog.Background()}
	if election := c.ComponentConfig.Generic.LeaderElection; election.LeaderElect {
		o.RenewDeadline = election.RenewDeadline.Duration
	}
	provider, err := cloud.New(o)
	if err != nil {
		return nil, err
	}
	legacyregistry.CustomMustRegister(provider.Collector())
	return provider, nil
}

// stopOnSignal ends the Cloud in order on the first SIGTERM or SIGINT, and then the framework; a second signal ends the
// process at once.
func stopOnSignal(c *cloud.Cloud, stop chan<- struct{}) {
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	go func() {
		defer close(stop)
		<-ctx.Done()
		cancel() // a second signal is not caught any more
		klog.InfoS("Stopping: letting calls to NSX end", "within", drainTime)
		limited, done := context.WithTimeout(context.Background(), drainTime)
		defer done()
		if err := c.Shutdown(limited); err != nil {
			klog.ErrorS(err, "Stopping in order failed")
		}
	}()
}
