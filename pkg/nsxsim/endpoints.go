package nsxsim

import (
	"maps"
	"net/http"
	"slices"
)

// Endpoint is a path that the simulator serves, with {id} for what clients choose
// or are told, and what can be done there: methods, and actions of the query as in
// "POST ?action=ALLOCATE".
type Endpoint struct {
	Path string
	Does []string
}

// Endpoints gives all that the release in question serves, by path. Whatever is not
// among them gets 404.
func (s *Sim) Endpoints() []Endpoint {
	does := map[string][]string{}
	add := func(path string, what ...string) {
		for _, w := range what {
			if !slices.Contains(does[path], w) {
				does[path] = append(does[path], w)
			}
		}
	}
	add("/api/session/create", http.MethodPost)
	add("/api/session/destroy", http.MethodGet, http.MethodPost)
	for _, path := range []string{"search", "search/query"} {
		add(managerBase+"/"+path, http.MethodGet)
	}
	for _, p := range s.platform {
		add(sub{path: p.path}.op(managerBase), http.MethodGet)
	}
	for _, action := range slices.Sorted(maps.Keys(tagActions)) {
		add(managerBase+"/"+fabricMachines, "POST ?action="+action)
	}
	add(managerBase+"/"+principalIdentities, http.MethodGet, http.MethodPost, "POST ?action=update_certificate")
	add(managerBase+"/"+principalIdentities+"/with-certificate", http.MethodPost)
	add(managerBase+"/"+principalIdentities+"/{id}", http.MethodGet, http.MethodDelete)
	addSubs := func(base string, subs []sub) {
		for _, sb := range subs {
			what := sb.method
			if sb.action != "" {
				what += " ?action=" + sb.action
			}
			add(sub{path: sb.path}.op(base), what)
		}
	}
	for path, k := range s.paths {
		base := managerBase + "/" + path
		if k.imports {
			add(base, http.MethodGet, "POST ?action=import")
			add(base+"/{id}", http.MethodGet, http.MethodDelete)
		} else {
			add(base, http.MethodGet, http.MethodPost)
			add(base+"/{id}", http.MethodGet, http.MethodPut, http.MethodDelete)
		}
		addSubs(base+"/{id}", k.subs)
	}
	if s.policy != nil {
		s.addPolicyEndpoints(add, addSubs)
	}
	var all []Endpoint
	for _, path := range slices.Sorted(maps.Keys(does)) {
		all = append(all, Endpoint{path, does[path]})
	}
	return all
}

func (s *Sim) addPolicyEndpoints(add func(string, ...string), addSubs func(string, []sub)) {
	infra := policyBase + "/infra"
	add(infra, http.MethodGet, http.MethodPatch)
	for _, path := range []string{"/search", "/search/query", "/infra/realized-state/realized-entities", "/infra/realized-state/status", "/infra/realized-state/alarms", "/infra/realized-state/virtual-machines", machines,
		"/infra/domains", "/infra/sites", "/infra/sites/default/enforcement-points", edgeClusters + "/{id}/edge-nodes", edgeClusters + "/{id}/edge-nodes/{id}"} {
		add(policyBase+path, http.MethodGet)
	}
	add(policyBase+machines, "POST ?action=update_tags")
	for _, f := range reflections {
		add(policyBase+f.path, http.MethodGet)
		add(policyBase+f.path+"/{id}", http.MethodGet)
	}
	for path := range fixedObjects {
		add(policyBase+"/"+path, http.MethodGet)
	}
	for _, k := range s.policy.kinds {
		base := infra
		if k.parent != "" {
			base += "/" + s.policy.byName[k.parent].collection + "/{id}"
		}
		base += "/" + k.collection
		add(base, http.MethodGet)
		add(base+"/{id}", http.MethodGet, http.MethodPut, http.MethodPatch, http.MethodDelete)
		addSubs(base+"/{id}", k.subs)
	}
}
