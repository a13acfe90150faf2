package controlplane

import (
	"context"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/kubernetes/cmd/kube-controller-manager/app"
	"k8s.io/kubernetes/cmd/kube-controller-manager/app/options"
)

// newControllerManager prepares kube-controller-manager; client is an administrator's.
func newControllerManager(o Options, client kubernetes.Interface) (component, error) {
	opts, err := options.NewKubeControllerManagerOptions()
	if err != nil {
		return component{}, err
	}
	known, disabled, aliases := app.KnownControllers(), app.ControllersDisabledByDefault(), app.ControllerAliases()
	flags := opts.Flags(known, disabled, aliases)
	opts.ParsedFlags = &flags
	err = parseFlags("kube-controller-manager", flags, []string{
		// Cloud loops, and addresses and routes of nodes, are the business of the cloud-controller-manager under test.
		"--allocate-node-cidrs=false",
		"--cloud-provider=external",
		"--controllers=" + strings.Join(o.Controllers, ","),
		"--kube-api-burst=400",
		"--kube-api-qps=200",
		"--kubeconfig=" + controllerManagerKubeconfig,
		"--leader-elect=false",
		"--root-ca-file=" + certFile(caName),
		"--secure-port=0",
		"--service-account-private-key-file=" + keyFile(serviceAccountName),
		"--use-service-account-credentials",
	}, o.ControllerManagerArgs)
	if err != nil {
		return component{}, err
	}
	return component{
		name: "controllers",
		run: func(ctx context.Context) error {
			config, err := opts.Config(ctx, known, disabled, aliases)
			if err != nil {
				return err
			}
			if err := app.Run(ctx, config.Complete()); err != nil {
				return err
			}
			return errEnded
		},
		// A Pod can be created as soon as its namespace has a ServiceAccount, which is the work of a controller.
		ready: func(ctx context.Context) error {
			return untilReady(ctx, func(ctx context.Context) error {
				_, err := client.CoreV1().ServiceAccounts(corev1.NamespaceDefault).Get(ctx, "default", metav1.GetOptions{})
				return err
			})
		},
	}, nil
}
