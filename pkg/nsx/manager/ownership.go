package manager

import (
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsx"
)

// ours tells whether an object is this cluster's: of a Service, or shared by the cluster. It is decided by tags alone, and
// tags that say two things say nothing: an object with a scope of ownership twice, without a value, or with both a Service
// and a use for the whole cluster was not tagged by us, or not by us alone, and is never touched. Scopes and values are
// compared as they are, since NSX keeps their case.
func (b *Backend) ours(h header) bool {
	uid, serves, shared := h.values(nsx.TagClusterUID), h.values(nsx.TagServiceUID), h.values(nsx.TagShared)
	return len(uid) == 1 && uid[0] != "" && uid[0] == b.opts.ClusterUID &&
		len(serves)+len(shared) == 1 && h.tag(nsx.TagServiceUID)+h.tag(nsx.TagShared) != ""
}

// owner is the Service that an object of ours serves; zero for one that the cluster shares.
func (h header) owner() nsx.Owner {
	return nsx.Owner{UID: h.tag(nsx.TagServiceUID), Name: h.tag(nsx.TagService)}
}

// tag is the value of a scope that is there once; empty for any other.
func (h header) tag(scope string) string {
	if v := h.values(scope); len(v) == 1 {
		return v[0]
	}
	return ""
}

func (h header) values(scope string) []string {
	var out []string
	for _, t := range h.Tags {
		if t.Scope == scope {
			out = append(out, t.Tag)
		}
	}
	return out
}
