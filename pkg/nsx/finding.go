package nsx

import (
	"fmt"
	"time"
)

// Edit is the last write of an object, as NSX tells it: _last_modified_user and _last_modified_time.
type Edit struct {
	// By is a user of NSX; empty when NSX does not say.
	By string
	At time.Time
}

// Later is the later one of two edits.
func (e Edit) Later(f Edit) Edit {
	if f.At.After(e.At) {
		return f
	}
	return e
}

func (e Edit) String() string {
	if e.By == "" {
		return "NSX does not say by whom"
	}
	return fmt.Sprintf("last modified by %q at %s", e.By, e.At.UTC().Format(time.RFC3339))
}

// Kind is what a Finding is about, in words that do as the label of a metric.
type Kind string

// The kinds of what is found.
const (
	KindVirtualServer Kind = "virtual_server"
	KindPool          Kind = "pool"
	KindMonitor       Kind = "monitor"
	KindNodeGroup     Kind = "node_group"
	KindClientGroup   Kind = "client_group"
	KindLBService     Kind = "load_balancer_service"
	KindAddress       Kind = "address"
	KindService       Kind = "service"
)

// Finding is something in NSX that is not as it should be.
type Finding struct {
	Kind Kind
	// ID in NSX, an address, or the Service's namespace/name; empty for an object that is gone.
	ID string
	// What is wrong, for people: "ports -80->30080", "is gone".
	What string
	// Edit is what may have made it so.
	Edit Edit
}

// PoolHealth is what the health checks of a pool's members found, as NSX tells it.
type PoolHealth struct {
	// Pool is the id of a pool of ours.
	Pool string
	// Up and Down count the members that their checks found so; others are off, draining or not checked.
	Up, Down int
	// Cause is why one of those that are down is so; empty when NSX does not say.
	Cause string
}

// AllDown tells whether nobody would answer.
func (h PoolHealth) AllDown() bool { return h.Up == 0 && h.Down > 0 }
