package vcsim

import (
	"context"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"sync"

	"github.com/vmware/govmomi/simulator"
	_ "github.com/vmware/govmomi/vapi/simulator" // serves the tags over REST
	"github.com/vmware/govmomi/vim25/types"
)

// Options are the settings of a vCenter.
type Options struct {
	// User and Password are the credentials it accepts. The defaults are administrator@vsphere.local and vcsim.
	User, Password string
}

// Server is a running vCenter. Its methods may be called at the same time as it serves requests.
type Server struct {
	model *simulator.Model
	http  *simulator.Server
	dir   string // holds the files of the datastores

	// inventory guards hosts and vms, and is held for writing while a VM is created, changed or destroyed.
	inventory sync.RWMutex
	hosts     map[string]placement
	vms       map[string]*machine

	credentials sync.Mutex
	user        string
	password    string
}

// placement is where the VMs of a host are created.
type placement struct {
	host, pool, folder types.ManagedObjectReference
}

// Start runs a vCenter with the given inventory, over TLS, on a free port of the loopback interface. The caller
// closes it.
func Start(ctx context.Context, inv Inventory, opts Options) (*Server, error) {
	inv, err := inv.complete()
	if err != nil {
		return nil, err
	}
	s := &Server{
		model:    emptyModel(),
		hosts:    map[string]placement{},
		vms:      map[string]*machine{},
		user:     opts.User,
		password: opts.Password,
	}
	if s.user == "" {
		s.user = "administrator@vsphere.local"
	}
	if s.password == "" {
		s.password = "vcsim"
	}
	if s.dir, err = os.MkdirTemp("", "vcsim-"); err != nil {
		return nil, fmt.Errorf("start vCenter simulator: %w", err)
	}
	if err := s.start(ctx, inv); err != nil {
		return nil, errors.Join(fmt.Errorf("start vCenter simulator: %w", err), s.Close())
	}
	return s, nil
}

// emptyModel is a vCenter without the many objects that govmomi's model has by default.
func emptyModel() *simulator.Model {
	m := simulator.VPX()
	m.Datacenter, m.Portgroup, m.Host, m.Cluster, m.ClusterHost, m.Datastore, m.Machine = 0, 0, 0, 0, 0, 0, 0
	return m
}

// starting is held while a vCenter is set up, because govmomi's simulator then changes variables of its own that all
// simulators in the process share. Once it serves, they are only read.
var starting sync.Mutex

func (s *Server) start(ctx context.Context, inv Inventory) error {
	tagged, err := s.serve(ctx, inv)
	if err != nil {
		return err
	}
	return s.attachTags(ctx, tagged)
}

// serve sets the vCenter up and returns what is to be tagged.
func (s *Server) serve(ctx context.Context, inv Inventory) ([]taggedObject, error) {
	starting.Lock()
	defer starting.Unlock()
	if err := s.model.Create(); err != nil {
		return nil, err
	}
	registry := s.model.Map()
	registry.Put(&searchIndex{SearchIndex: registry.SearchIndex(), inventory: &s.inventory})
	registry.SessionManager().ValidLogin = s.validLogin

	tagged, err := s.build(ctx, inv)
	if err != nil {
		return nil, err
	}

	service := s.model.Service
	service.RegisterEndpoints = true
	service.TLS = new(tls.Config)
	// Any user in the URL but govmomi's default makes it ask ValidLogin.
	service.Listen = &url.URL{User: url.UserPassword(s.user, s.password)}
	s.http = service.NewServer()
	return tagged, nil
}

// Close stops the vCenter, after the requests that it is answering, and removes its files.
func (s *Server) Close() error {
	if s.http != nil {
		s.http.Close()
	}
	if s.model.Service != nil {
		s.model.Remove()
	}
	return os.RemoveAll(s.dir)
}

// URL is the address of the vCenter's SDK, without credentials: https://127.0.0.1:port/sdk.
func (s *Server) URL() string {
	u := *s.http.URL
	u.User = nil
	return u.String()
}

// CA returns the certificate that signs the server's own, in PEM.
func (s *Server) CA() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.http.Certificate().Raw})
}

// CAFile returns the path of a file with CA, which is removed by Close.
func (s *Server) CAFile() (string, error) {
	file := filepath.Join(s.dir, "ca.pem")
	return file, os.WriteFile(file, s.CA(), 0o600)
}

// Credentials returns the user and the password that the vCenter accepts.
func (s *Server) Credentials() (user, password string) {
	s.credentials.Lock()
	defer s.credentials.Unlock()
	return s.user, s.password
}

// SetCredentials changes the user and the password that the vCenter accepts. Sessions go on, as in vCenter.
func (s *Server) SetCredentials(user, password string) {
	s.credentials.Lock()
	defer s.credentials.Unlock()
	s.user, s.password = user, password
}

func (s *Server) validLogin(req *types.Login) bool {
	user, password := s.Credentials()
	return req.UserName == user && req.Password == password
}

// TerminateSessions ends all SOAP sessions, as an administrator or the idle timeout of vCenter does. REST sessions
// go on.
func (s *Server) TerminateSessions() error {
	ctx := s.context()
	view, ok := ctx.Session.Get(s.model.Map().SessionManager().Self).(*simulator.SessionManager)
	if !ok {
		return errors.New("vCenter simulator: no session manager")
	}
	req := &types.TerminateSession{This: view.Self}
	for _, session := range view.SessionList {
		req.SessionId = append(req.SessionId, session.Key)
	}
	if fault := view.TerminateSession(ctx, req).Fault(); fault != nil {
		return fmt.Errorf("vCenter simulator: terminate sessions: %s", fault.String)
	}
	return nil
}

// context makes a context for one operation: govmomi lets the operations of one context share their locks.
func (s *Server) context() *simulator.Context {
	ctx := *s.model.Service.Context
	return &ctx
}
