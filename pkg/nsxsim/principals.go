package nsxsim

import (
	"net/http"
	"slices"
)

// Principal identities that clients register: a name with the certificate by which it
// authenticates. What a protected one makes is its own.

// KindPrincipalIdentity is registered, given another certificate and deleted, and never
// changed otherwise.
const KindPrincipalIdentity Kind = "PrincipalIdentity"

const principalIdentities = "trust-management/principal-identities"

func principalKind() *kind {
	return &kind{
		name: KindPrincipalIdentity, types: []string{"PrincipalIdentity"},
		fields: []field{
			{name: "name", shape: stringShape, required: true, max: 255},
			{name: "node_id", shape: stringShape, required: true, max: 255},
			{name: "certificate_id", shape: stringShape, required: true, ref: certificateRefs},
			{name: "role", shape: stringShape},
			{name: "permission_group", shape: stringShape, oneOf: []string{"read_only_api_users", "read_write_api_users", "superusers", "undefined"}},
			{name: "is_protected", shape: boolShape, def: "true"},
		},
		check: func(c *change) *Error {
			name, node := c.doc.str("name"), c.doc.str("node_id")
			if c.auth.isAccount(name) {
				return refuse(codeValidation, "The name %s is that of a user.", name)
			}
			for _, o := range c.store.list(KindPrincipalIdentity) {
				if o.id != c.id && o.doc.str("name") == name && o.doc.str("node_id") == node {
					return refuse(codeValidation, "A principal identity with name %s and node_id %s exists already.", name, node)
				}
			}
			return nil
		},
	}
}

// principal is a user that a client registered.
type principal struct {
	User
	der string // of its certificate
}

// learnPrincipals tells the authenticator who is registered now.
func (s *Sim) learnPrincipals() {
	var all []principal
	for _, o := range s.store.list(KindPrincipalIdentity) {
		p := principal{User: User{Name: o.doc.str("name"), Principal: o.doc.boolean("is_protected"),
			ReadOnly: o.doc.str("role") == "auditor" || o.doc.str("permission_group") == "read_only_api_users"}}
		if cert := s.store.get(KindCertificate, o.doc.str("certificate_id")); cert != nil {
			if chain, err := parseCertificates(cert.doc.str("pem_encoded")); err == nil {
				p.der = string(chain[0].Raw)
			}
		}
		all = append(all, p)
	}
	s.auth.setPrincipals(all)
}

func (a *authenticator) setPrincipals(all []principal) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.principals = all
}

// isAccount tells whether the name is that of a user of the manager itself.
func (a *authenticator) isAccount(name string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	_, ok := a.users[name]
	return ok
}

// byCertificate gives the user whose certificate has the DER.
func (a *authenticator) byCertificate(der string) (User, bool) {
	if name, ok := a.byCert[der]; ok {
		return a.user(name), true
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	i := slices.IndexFunc(a.principals, func(p principal) bool { return p.der == der })
	if i < 0 {
		return User{}, false
	}
	return a.principals[i].User, true
}

// principalRoute finds the route of a request about principal identities.
func (s *Sim) principalRoute(r *request, segments []string) (route, bool) {
	rest, ok := matchSegments(principalIdentities+"/*", segments)
	if _, all := matchSegments(principalIdentities, segments); !all && !ok {
		return route{}, false
	}
	rt := route{op: r.Method + " /" + principalIdentities, kind: s.kinds[KindPrincipalIdentity]}
	action := r.query.Get("action")
	switch {
	case len(rest) == 0 && r.Method == http.MethodGet:
		rt.serve = listObjects
	case len(rest) == 0 && r.Method == http.MethodPost && action == "":
		rt.serve = createObject
	case len(rest) == 0 && r.Method == http.MethodPost && action == "update_certificate":
		rt.op, rt.serve = rt.op+"?action="+action, updatePrincipal
	case len(rest) == 1 && rest[0] == "with-certificate":
		rt.op += "/with-certificate"
		if r.Method == http.MethodPost {
			rt.serve = registerPrincipal
		}
	case len(rest) == 1:
		rt.op, rt.id = rt.op+"/{id}", rest[0]
		switch r.Method {
		case http.MethodGet:
			rt.serve = getObject
		case http.MethodDelete:
			rt.serve = deleteObject
		}
	}
	if rt.serve == nil {
		rt.refused = methodNotAllowed(r)
	}
	return rt, true
}

// registerPrincipal serves POST /trust-management/principal-identities/with-certificate:
// the certificate is imported on the way.
func registerPrincipal(r *request) (*response, *Error) {
	doc, err := r.document()
	if err != nil {
		return nil, err
	}
	if doc.str("certificate_pem") == "" {
		return nil, invalid("certificate_pem is required")
	}
	pem := doc["certificate_pem"]
	delete(doc, "certificate_pem")
	cert, err := r.sim.create(r.author, r.sim.kinds[KindCertificate], document{"pem_encoded": pem, "display_name": encode(doc.str("name"))}, "")
	if err != nil {
		return nil, err
	}
	doc.set("certificate_id", cert.id)
	o, err := r.sim.create(r.author, r.route.kind, doc, "")
	if err != nil {
		_ = r.sim.remove(r.author, cert.kind, cert.id, false) // it is new, and of nobody: it can be
		return nil, err
	}
	shown := o.doc.clone()
	shown["certificate_pem"] = pem
	return &response{status: http.StatusCreated, body: encode(shown)}, nil
}

// updatePrincipal serves POST /trust-management/principal-identities?action=update_certificate.
func updatePrincipal(r *request) (*response, *Error) {
	body, err := r.document()
	if err != nil {
		return nil, err
	}
	o := r.sim.store.get(KindPrincipalIdentity, body.str("principal_identity_id"))
	if o == nil {
		return nil, r.sim.notFound(body.str("principal_identity_id"))
	}
	doc := o.doc.clone()
	doc["certificate_id"] = encode(body.str("certificate_id"))
	return r.store(o, doc)
}
