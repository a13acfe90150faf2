package nsxsim

import (
	"net/http"
	"slices"

	"github.com/google/uuid"
)

// The virtual machines that NSX has found on its hosts, with the addresses of their
// interfaces: groups find them by tag and name. Clients read them and tag them; they
// are made by inventories and tests.

// KindVirtualMachine has what the Manager API tells of virtual machines, and beside that
// ip_addresses, the addresses of its one interface, and lport_attachment_id, by which
// that is attached to a logical port. An object's id is its external_id.
const KindVirtualMachine Kind = "VirtualMachine"

func machineKind() *kind {
	return &kind{
		name: KindVirtualMachine, types: []string{"VirtualMachine"}, traffic: true,
		fields: []field{
			{name: "external_id", shape: stringShape},
			{name: "ip_addresses", shape: listShape, item: &field{shape: stringShape, check: checkAddress}},
			{name: "lport_attachment_id", shape: stringShape},
			{name: "compute_ids", shape: listShape, item: &field{shape: stringShape}},
			{name: "power_state", shape: stringShape, def: `"VM_RUNNING"`, oneOf: []string{"VM_RUNNING", "VM_STOPPED", "VM_SUSPENDED", "UNKNOWN"}},
			{name: "type", shape: stringShape, def: `"REGULAR"`, oneOf: []string{"EDGE", "SERVICE", "REGULAR", "MGMT"}},
			{name: "guest_info", shape: objectShape, fields: []field{
				{name: "os_name", shape: stringShape},
				{name: "computer_name", shape: stringShape},
			}},
		},
		keys: func(doc document) []string { return []string{attachedKey(doc.str("lport_attachment_id"))} },
		check: func(c *change) *Error {
			if given := c.doc.str("external_id"); given != "" && given != c.id {
				return invalid("external_id must be the id")
			}
			c.doc.set("external_id", c.id)
			c.doc.set("local_id_on_host", c.id)
			if !c.doc.has("compute_ids") {
				c.doc.set("compute_ids", []string{"externalId:" + c.id, "instanceUuid:" + c.id, "biosUuid:" + c.id})
			}
			if c.doc.str("lport_attachment_id") == "" {
				c.doc.set("lport_attachment_id", uuid.NewSHA1(uuid.NameSpaceURL, []byte("vif/"+c.id)))
			}
			c.doc.set("host_id", freshID("host"))
			return nil
		},
	}
}

func attachedKey(id string) string { return "vif/" + id }

// behind gives the virtual machines whose interfaces are attached to a port.
func (s *Sim) behind(port *object) []*object {
	return s.store.withKey(attachedKey(port.doc.object("attachment").str("id")))
}

// machine shows a virtual machine as the Manager API does, to which it is no object.
func machine(vm *object) document {
	doc := vm.doc.clone()
	for name := range doc {
		if slices.Contains([]string{"id", "ip_addresses", "lport_attachment_id"}, name) || name[0] == '_' {
			delete(doc, name)
		}
	}
	doc.set("_last_sync_time", vm.doc["_last_modified_time"])
	return doc
}

// realizedMachine shows one as the Policy API does.
func realizedMachine(vm *object) document {
	doc := machine(vm)
	path := machines + "/" + vm.id
	doc.set("resource_type", "RealizedVirtualMachine")
	doc.set("id", vm.id)
	doc.set("path", path)
	doc.set("relative_path", vm.id)
	doc.set("parent_path", parentPath(path))
	doc.set("unique_id", vm.id)
	doc.set("state", realized)
	doc.set("_revision", vm.revision)
	return doc
}

// machines is where the Policy API shows them.
const machines = "/infra/realized-state/enforcement-points/default/virtual-machines"

// machineNIC is the interface of a virtual machine.
func machineNIC(vm *object) map[string]any {
	return map[string]any{
		"resource_type": "VirtualNetworkInterface", "external_id": vm.id + "-4000", "owner_vm_id": vm.id, "owner_vm_type": vm.doc["type"],
		"display_name": "Network adapter 1", "device_name": "Network adapter 1", "device_key": "4000", "host_id": vm.doc["host_id"],
		"vm_local_id_on_host": vm.id, "lport_attachment_id": vm.doc["lport_attachment_id"], "_last_sync_time": vm.doc["_last_modified_time"],
		"ip_address_info": []any{map[string]any{"source": "VM_TOOLS", "ip_addresses": vm.doc.strs("ip_addresses")}},
	}
}

// machinesAsked gives those that a request's filters leave.
func (r *request) machinesAsked() []*object {
	var kept []*object
	for _, vm := range r.sim.store.list(KindVirtualMachine) {
		fits := true
		for _, name := range []string{"external_id", "display_name"} {
			if v := r.query.Get(name); v != "" && vm.doc.str(name) != v {
				fits = false
			}
		}
		if fits {
			kept = append(kept, vm)
		}
	}
	return kept
}

func listMachines(show func(*object) document) func(*request) (*response, *Error) {
	return func(r *request) (*response, *Error) {
		list := []any{}
		for _, vm := range r.machinesAsked() {
			list = append(list, show(vm))
		}
		return r.page(list)
	}
}

func listNICs(r *request) (*response, *Error) {
	list := []any{}
	for _, vm := range r.sim.store.list(KindVirtualMachine) {
		if owner := r.query.Get("owner_vm_id"); owner == "" || owner == vm.id {
			list = append(list, machineNIC(vm))
		}
	}
	return r.page(list)
}

// tagMachine gives the virtual machine that the body names by a member other tags.
func tagMachine(name string, change func(have, given []document) []document) func(*request) (*response, *Error) {
	return func(r *request) (*response, *Error) {
		body, err := r.document()
		if err != nil {
			return nil, err
		}
		vm := r.sim.store.get(KindVirtualMachine, body.str(name))
		if vm == nil {
			return nil, r.sim.notFound(body.str(name))
		}
		doc := vm.doc.clone()
		doc.set("tags", change(doc.objects("tags"), body.objects("tags")))
		if _, err := r.store(vm, doc); err != nil {
			return nil, err
		}
		return &response{status: http.StatusNoContent}, nil
	}
}

// tagActions are those of ?action=.
var tagActions = map[string]func(have, given []document) []document{
	"update_tags": func(_, given []document) []document { return slices.Concat([]document{}, given) },
	"add_tags": func(have, given []document) []document {
		return append(withoutTags(have, given), given...)
	},
	"remove_tags": func(have, given []document) []document { return slices.Concat([]document{}, withoutTags(have, given)) },
}

func withoutTags(have, given []document) []document {
	return slices.DeleteFunc(have, func(h document) bool {
		return slices.ContainsFunc(given, func(g document) bool { return g.str("scope") == h.str("scope") && g.str("tag") == h.str("tag") })
	})
}

// tagRoute finds the route of a POST that tags virtual machines.
func tagRoute(r *request, op, name string) (route, bool) {
	action := r.query.Get("action")
	change := tagActions[action]
	if r.Method != http.MethodPost || change == nil {
		return route{}, false
	}
	return route{op: op + "?action=" + action, serve: tagMachine(name, change)}, true
}
