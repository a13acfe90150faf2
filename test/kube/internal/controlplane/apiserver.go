package controlplane

import (
	"context"
	"fmt"
	"net"

	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	"k8s.io/client-go/kubernetes"
	"k8s.io/kubernetes/cmd/kube-apiserver/app"
	"k8s.io/kubernetes/cmd/kube-apiserver/app/options"
)

// newAPIServer prepares kube-apiserver on listener; client is an administrator's.
func newAPIServer(o Options, listener net.Listener, client kubernetes.Interface) (component, error) {
	address := listener.Addr().(*net.TCPAddr)
	opts := options.NewServerRunOptions()
	err := parseFlags("kube-apiserver", opts.Flags(), []string{
		// Named, because the default is the address of the default route, and there may be none.
		"--advertise-address=" + address.IP.String(),
		// The endpoints of the Service kubernetes would be this address, and Endpoints refuse loopback addresses.
		"--endpoint-reconciler-type=none",
		"--allow-privileged",
		"--authorization-mode=RBAC",
		"--client-ca-file=" + certFile(caName),
		"--etcd-servers=" + etcdClientURL,
		"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
		"--service-account-key-file=" + keyFile(serviceAccountName),
		"--service-account-signing-key-file=" + keyFile(serviceAccountName),
		"--service-cluster-ip-range=" + o.ServiceClusterIPRange,
		"--tls-cert-file=" + certFile(servingName),
		"--tls-private-key-file=" + keyFile(servingName),
		"--token-auth-file=" + tokenFile,
	}, o.APIServerArgs)
	if err != nil {
		return component{}, err
	}
	opts.SecureServing.Listener = listener
	opts.SecureServing.BindAddress = address.IP
	opts.SecureServing.BindPort = address.Port

	return component{
		name: "apiserver",
		run: func(ctx context.Context) error {
			completed, err := opts.Complete(ctx)
			if err != nil {
				return err
			}
			if errs := completed.Validate(); len(errs) > 0 {
				return utilerrors.NewAggregate(errs)
			}
			if err := app.Run(ctx, completed); err != nil {
				return err
			}
			return errEnded
		},
		ready: func(ctx context.Context) error {
			return untilReady(ctx, func(ctx context.Context) error {
				if _, err := client.Discovery().RESTClient().Get().AbsPath("/readyz").DoRaw(ctx); err != nil {
					return fmt.Errorf("/readyz: %w", err)
				}
				return nil
			})
		},
	}, nil
}
