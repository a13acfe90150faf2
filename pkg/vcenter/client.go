package vcenter

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/vmware/govmomi/object"
)

// Client finds VMs in one or several vCenters. It logs in when it is first asked. Its methods may be called at the
// same time.
type Client struct {
	servers []*server
}

// New checks the options; it contacts no vCenter. The caller closes the client.
func New(opts Options) (*Client, error) {
	opts = opts.withDefaults()
	c := &Client{}
	if len(opts.Servers) == 0 {
		return nil, errors.New("vCenter client: no server is configured")
	}
	for i, config := range opts.Servers {
		s, err := newServer(config, opts)
		if err != nil {
			return nil, fmt.Errorf("vCenter client: server %d: %w", i+1, err)
		}
		c.servers = append(c.servers, s)
	}
	return c, nil
}

// Close logs out of all vCenters. Calls that have not returned yet may leave a session open.
func (c *Client) Close(ctx context.Context) error {
	var errs []error
	for _, s := range c.servers {
		errs = append(errs, s.call(ctx, s.close))
	}
	return errors.Join(errs...)
}

// ByUUID finds a VM by its BIOS UUID, given in any case and in either byte order.
func (c *Client) ByUUID(ctx context.Context, id string) (VM, error) {
	parsed, err := parseUUID(id)
	if err != nil {
		return VM{}, fmt.Errorf("find VM: %w", err)
	}
	forms := byteOrders(parsed)
	return c.find(ctx, "BIOS UUID "+parsed.String(), func(ctx context.Context, index *object.SearchIndex, dc *object.Datacenter) ([]object.Reference, error) {
		for _, form := range forms {
			if refs, err := index.FindAllByUuid(ctx, dc, form, true, nil); err != nil || len(refs) > 0 {
				return refs, err
			}
		}
		return nil, nil
	})
}

// ByName finds a VM by the DNS name that its VMware Tools report. A VM that is off or runs no VMware Tools may report
// none, so here ErrNotFound does not prove that there is no such VM.
func (c *Client) ByName(ctx context.Context, hostName string) (VM, error) {
	return c.find(ctx, "host name "+hostName, func(ctx context.Context, index *object.SearchIndex, dc *object.Datacenter) ([]object.Reference, error) {
		return index.FindAllByDnsName(ctx, dc, hostName, true)
	})
}

// Locate returns the VM with its Zone and Region: the tags of those categories on the VM, its host, or the host's
// ancestors (cluster, folders, datacenter), the nearest first. The VM comes from this client.
func (c *Client) Locate(ctx context.Context, vm VM) (VM, error) {
	if vm.server == nil || vm.host == nil {
		return VM{}, fmt.Errorf("locate VM %s: it is on no known host", vm.Name)
	}
	err := vm.server.call(ctx, func(ctx context.Context) error {
		at, err := vm.server.locate(ctx, vm.ref, *vm.host)
		vm.Zone, vm.Region = at.zone, at.region
		return err
	})
	if err != nil {
		return VM{}, fmt.Errorf("locate VM %s: %w", vm.Name, err)
	}
	return vm, nil
}

// find asks all vCenters at once. A VM that runs is the answer, whatever the others say; one that does not run may be
// a replica of one that does, so all are heard first.
func (c *Client) find(ctx context.Context, what string, q query) (VM, error) {
	ctx, cancel := context.WithCancel(ctx)
	var asking sync.WaitGroup
	defer asking.Wait()
	defer cancel()

	type answer struct {
		server int
		vm     VM
		err    error
	}
	answers := make(chan answer, len(c.servers))
	for i, s := range c.servers {
		asking.Go(func() {
			a := answer{server: i}
			a.err = s.call(ctx, func(ctx context.Context) (err error) {
				a.vm, err = s.find(ctx, q)
				return err
			})
			s.heard(ctx, a.err)
			answers <- a
		})
	}

	heard := make([]answer, len(c.servers))
	for range c.servers {
		a := <-answers
		if a.err == nil && a.vm.PoweredOn {
			return a.vm, nil
		}
		heard[a.server] = a
	}
	var names []string
	var failures []error
	for i, a := range heard {
		switch {
		case a.err == nil:
			return a.vm, nil
		case errors.Is(a.err, ErrNotFound):
			names = append(names, c.servers[i].name)
		default:
			failures = append(failures, a.err)
		}
	}
	if len(failures) > 0 {
		return VM{}, fmt.Errorf("find VM by %s: %w", what, errors.Join(failures...))
	}
	return VM{}, fmt.Errorf("%w with the %s in vCenter %s", ErrNotFound, what, strings.Join(names, ", "))
}

// call bounds the time of a question to the vCenter and names it in the error.
func (s *server) call(ctx context.Context, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, s.opts.Timeout)
	defer cancel()
	if err := f(ctx); err != nil {
		return fmt.Errorf("vCenter %s: %w", s.name, err)
	}
	return nil
}
