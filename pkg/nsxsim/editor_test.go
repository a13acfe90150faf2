package nsxsim_test

import (
	"errors"
	"testing"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim"
)

// Edits of others keep the rules and show as theirs.
func TestEditorsWriteAsOthers(t *testing.T) {
	b := newBench(t, nsxsim.Options{})
	id := b.create(pools, doc{"tags": []doc{{"scope": "owner", "tag": "me"}}})
	other := b.As("other")
	o, err := other.Update(nsxsim.KindPool, id, func(o nsxsim.Object) { o["description"] = "theirs" })
	if err != nil || o.String("_last_modified_user") != "other" || o.Revision() != 1 || o.Tags()["owner"] != "me" {
		t.Errorf("%v, %v", o, err)
	}
	if a := b.do("PUT", pools+"/"+id, doc{"_revision": 0}); a.status != 412 {
		t.Errorf("our PUT with the revision before: %d, want 412", a.status)
	}

	refused := func(what string, err error, status int) {
		t.Helper()
		var e *nsxsim.Error
		if !errors.As(err, &e) || e.Status != status {
			t.Errorf("%s: %v, want status %d", what, err, status)
		}
	}
	vs := b.create(servers, b.tcpVS("10.1.0.1", []string{"80"}, doc{"pool_id": id}))
	refused("deleting what is in use", other.Delete(nsxsim.KindPool, id), 400)
	if err := other.Delete(nsxsim.KindVirtualServer, vs); err != nil {
		t.Error(err)
	}
	if err := other.Delete(nsxsim.KindPool, id); err != nil {
		t.Error(err)
	}
	if b.Get(nsxsim.KindPool, id) != nil {
		t.Error("the pool is there yet")
	}
	refused("deleting it again", other.Delete(nsxsim.KindPool, id), 404)
	_, err = other.Update(nsxsim.KindPool, id, func(nsxsim.Object) {})
	refused("updating it", err, 404)
	_, err = other.Create(nsxsim.KindPool, nsxsim.Object{"algorithm": "RANDOM"})
	refused("creating what is invalid", err, 400)
	_, err = other.Create(nsxsim.KindPool, nsxsim.Object{"id": b.create(pools, doc{})})
	refused("creating what is there", err, 400)
	_, err = other.Create("LbFrob", nsxsim.Object{})
	refused("an unknown kind", err, 404)
	_, err = other.Allocate("nope", "")
	refused("an unknown IP pool", err, 404)
	if _, err := other.Create(nsxsim.KindPool, nsxsim.Object{"x": func() {}}); err == nil {
		t.Error("what is no JSON is taken")
	}

	policy := b.As("nsx_policy")
	theirs := nsxsim.Must(policy.Create(nsxsim.KindPool, nsxsim.Object{})).ID()
	refused("deleting what a principal owns", other.Delete(nsxsim.KindPool, theirs), 400)
	if err := other.Overwrite().Delete(nsxsim.KindPool, theirs); err != nil {
		t.Error(err)
	}
}

func TestObjectsReadAreCopies(t *testing.T) {
	r := newRig(t, nsxsim.Options{})
	id := r.create(pools, doc{"display_name": "mine"})
	r.Get(nsxsim.KindPool, id)["display_name"] = "changed"
	r.List(nsxsim.KindPool)[0]["display_name"] = "changed"
	if got := r.Get(nsxsim.KindPool, id).String("display_name"); got != "mine" {
		t.Errorf("the store holds %q", got)
	}
}
