package lb

import (
	"fmt"
	"slices"
	"strings"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsx"
)

// change is a virtual server that carries traffic, as it is to become.
type change struct {
	want nsx.VirtualServer
	// text says for people what differs; empty when nothing does.
	text string
	// grows: it gets ports that it does not have.
	grows bool
}

// changeOf compares everything of a live virtual server but its address and load-balancer service, which stay.
func changeOf(s slot) change {
	have, want := *s.have, s.want
	c := change{want: want}
	var diffs []string
	differs := func(format string, args ...any) { diffs = append(diffs, fmt.Sprintf(format, args...)) }

	var ports []string
	for _, p := range have.Ports {
		if !slices.Contains(want.Ports, p) {
			ports = append(ports, "-"+p.String())
		}
	}
	for _, p := range want.Ports {
		if !slices.Contains(have.Ports, p) {
			ports = append(ports, "+"+p.String())
		}
		if !slices.ContainsFunc(have.Ports, func(q nsx.PortMap) bool { return q.Port == p.Port }) {
			c.grows = true
		}
	}
	if len(ports) > 0 {
		differs("ports %s", strings.Join(ports, " "))
	}
	if !have.Pool.Equal(want.Pool) {
		differs("%s", want.Pool)
	}
	if have.ApplicationProfile != want.ApplicationProfile {
		differs("application profile %s", want.ApplicationProfile)
	}
	if have.Affinity != want.Affinity {
		differs("affinity %v", want.Affinity)
	}
	if !have.Sources.Equal(want.Sources) {
		differs("%s", want.Sources)
	}
	if have.Class != want.Class {
		differs("class %s", want.Class)
	}
	c.text = strings.Join(diffs, "; ")
	return c
}
