package vcenter

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"sync"

	"github.com/vmware/govmomi"
	"github.com/vmware/govmomi/fault"
	"github.com/vmware/govmomi/session"
	"github.com/vmware/govmomi/vapi/rest"
	"github.com/vmware/govmomi/vapi/tags"
	"github.com/vmware/govmomi/vim25"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
	"k8s.io/klog/v2"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/reach"
)

// server is one vCenter: its connections and its two sessions, one of the SDK (SOAP) and one of the tag service
// (REST). Its methods take as long as their context lets them.
type server struct {
	name   string
	config Server
	opts   Options

	// transport is never logged in. It holds the connections that the clients of all sessions share.
	transport *soap.Client
	login     *login
	sdk       *sessions[*govmomi.Client]
	tags      *sessions[*tags.Manager]
	reach     *reach.Record

	mu     sync.Mutex
	places map[types.ManagedObjectReference]place // of VMs and hosts, remembered for a while
}

func newServer(config Server, opts Options) (*server, error) {
	endpoint, err := config.endpoint()
	if err != nil {
		return nil, err
	}
	if config.Credentials == nil {
		return nil, errors.New("no credentials are configured")
	}
	trust, err := config.tlsConfig()
	if err != nil {
		return nil, err
	}
	config.ZoneCategory = cmp.Or(config.ZoneCategory, DefaultZoneCategory)
	config.RegionCategory = cmp.Or(config.RegionCategory, DefaultRegionCategory)
	s := &server{
		name:      endpoint.Host,
		config:    config,
		opts:      opts,
		transport: soap.NewClient(endpoint, config.Insecure),
		login:     &login{credentials: config.Credentials, clock: opts.Clock},
		places:    map[types.ManagedObjectReference]place{},
		reach:     reach.New(opts.Clock),
	}
	transport := s.transport.DefaultTransport()
	transport.TLSClientConfig = trust
	// govmomi's own dialer does not stop with the context; the standard one, used when there is none, does.
	transport.DialTLSContext = nil
	s.sdk = newSessions(s.openSDK, sdkExpired)
	s.tags = newSessions(s.openTags, tagsExpired)
	return s, nil
}

func (s *server) openSDK(ctx context.Context) (*govmomi.Client, error) {
	// A new client, for its empty cookie jar: log-in with the cookie of a live session is an error.
	client, err := vim25.NewClient(ctx, s.transport.NewServiceClient(s.transport.URL().Path, vim25.Namespace))
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	out := &govmomi.Client{Client: client, SessionManager: session.NewManager(client)}
	err = s.login.do(ctx, func(user *url.Userinfo) error { return out.SessionManager.Login(ctx, user) })
	if err != nil {
		return nil, err
	}
	klog.FromContext(ctx).V(2).Info("Logged in to vCenter", "vcenter", s.name)
	return out, nil
}

func (s *server) openTags(ctx context.Context) (*tags.Manager, error) {
	client := rest.NewClient(&vim25.Client{Client: s.transport})
	err := s.login.do(ctx, func(user *url.Userinfo) error { return client.Login(ctx, user) })
	if err != nil {
		return nil, err
	}
	klog.FromContext(ctx).V(2).Info("Logged in to the tag service of vCenter", "vcenter", s.name)
	return tags.NewManager(client), nil
}

func sdkExpired(err error) bool { return fault.Is(err, &types.NotAuthenticated{}) }

func tagsExpired(err error) bool { return rest.IsStatusError(err, http.StatusUnauthorized) }

// close logs out of the sessions, for vCenter limits their number, and closes the connections.
func (s *server) close(ctx context.Context) error {
	defer s.transport.CloseIdleConnections()
	sdk, err := s.sdk.close(ctx)
	if sdk != nil {
		if err = sdk.SessionManager.Logout(ctx); sdkExpired(err) {
			err = nil
		}
	}
	service, tagErr := s.tags.close(ctx)
	if service != nil {
		if tagErr = service.Logout(ctx); tagsExpired(tagErr) {
			tagErr = nil
		}
	}
	return errors.Join(err, tagErr)
}
