package main

import (
	"context"
	"net/http"

	cloudprovider "k8s.io/cloud-provider"
	"k8s.io/cloud-provider/app"
	appconfig "k8s.io/cloud-provider/app/config"
	genericapp "k8s.io/controller-manager/app"
	"k8s.io/controller-manager/controller"
	controllerhealthz "k8s.io/controller-manager/pkg/healthz"
)

// watchdogController is the name of the health check that our own work gets in the framework's /healthz.
const watchdogController = "nsxt-watchdog"

// watchdog is a controller for the framework that runs nothing: it is there for its health check, which is how /healthz learns
// that our own work is not stuck.
type watchdog struct{ alive func() error }

var _ controller.HealthCheckable = watchdog{}

// newWatchdog is the framework's way to make one.
func newWatchdog() app.ControllerInitFuncConstructor {
	return app.ControllerInitFuncConstructor{
		InitContext: app.ControllerInitContext{ClientName: watchdogController},
		Constructor: func(_ app.ControllerInitContext, _ *appconfig.CompletedConfig, provider cloudprovider.Interface) app.InitFunc {
			return func(context.Context, genericapp.ControllerContext) (controller.Interface, bool, error) {
				p, ours := provider.(interface{ Alive() error })
				return watchdog{func() error { return p.Alive() }}, ours, nil
			}
		},
	}
}

// Name implements controller.Interface.
func (watchdog) Name() string { return watchdogController }

// HealthChecker implements controller.HealthCheckable.
func (w watchdog) HealthChecker() controllerhealthz.UnnamedHealthChecker { return w }

// Check implements healthz.UnnamedHealthChecker.
func (w watchdog) Check(*http.Request) error { return w.alive() }
