package nsxsim

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/google/uuid"
)

// What layer 7 needs in the Policy API: certificates, SSL profiles and their
// bindings, and rules, which are a part of their virtual server here and objects of
// their own in the Manager.

// policyCertificateKind: what comes in as TlsTrustData is shown as a TlsCertificate.
func policyCertificateKind() *policyKind {
	return &policyKind{
		kind: kind{name: KindPolicyCertificate, types: []string{"TlsCertificate"}, check: checkPolicyCertificate,
			mirror: func(doc document) {
				if t := doc.str("resource_type"); t == "TlsTrustData" || t == "" {
					doc.set("resource_type", "TlsCertificate")
				}
			},
			fields: []field{
				{name: "pem_encoded", shape: stringShape, required: true, check: checkCertificates},
				{name: "private_key", shape: stringShape},
				{name: "passphrase", shape: stringShape},
				{name: "key_algo", shape: stringShape},
				{name: "purpose", shape: stringShape, oneOf: []string{"signing-ca"}},
				{name: "details", readOnly: true},
				{name: "has_private_key", readOnly: true},
				{name: "tls_certificate_type", readOnly: true},
				{name: "used_by", readOnly: true},
			}},
		collection: "certificates", child: "TlsTrustData", target: KindCertificate, realize: realizeCertificate,
	}
}

// checkPolicyCertificate keeps the private key apart from the document, where
// answers, searches and snapshots would show it.
func checkPolicyCertificate(c *change) *Error {
	key := c.doc.str("private_key")
	if err := checkCertificate(c); err != nil {
		return err
	}
	keys := c.policy.privateKeys
	switch {
	case key != "":
		keys[c.id] = key
	case c.old == nil || c.old.doc.str("pem_encoded") != c.doc.str("pem_encoded"):
		delete(keys, c.id)
	}
	c.doc.set("has_private_key", keys[c.id] != "")
	typed := document{"pem_encoded": c.doc["pem_encoded"]}
	certificateType(typed)
	c.doc.set("tls_certificate_type", strings.ToUpper(typed.str("resource_type")))
	return nil
}

func realizeCertificate(s *Sim, o *object, rec *realization) *Error {
	doc := managerDoc(o)
	for _, name := range []string{"resource_type", "has_private_key", "tls_certificate_type", "purpose"} {
		delete(doc, name)
	}
	if key := s.policy.privateKeys[o.id]; key != "" {
		doc.set("private_key", key)
	}
	return s.make(rec, o.id, KindCertificate, rec.uid, doc)
}

var policySSLFields = []field{
	{name: "cipher_group_label", shape: stringShape, oneOf: []string{"BALANCED", "HIGH_SECURITY", "HIGH_COMPATIBILITY", "CUSTOM"}},
	{name: "session_cache_enabled", shape: boolShape, def: "true"},
	{name: "ciphers", shape: listShape, item: &field{shape: stringShape, min: 1}},
	{name: "protocols", shape: listShape, def: `["TLS_V1_1","TLS_V1_2"]`, item: &tlsProtocols},
	{name: "is_secure", readOnly: true},
	{name: "is_fips", readOnly: true},
}

var policyCertificateRefs = []Kind{KindPolicyCertificate}

var certificatePaths = &field{shape: stringShape, min: 1}

var policyClientBindingFields = []field{
	{name: "ssl_profile_path", shape: stringShape, ref: []Kind{KindPolicyClientSSLProfile}},
	{name: "default_certificate_path", shape: stringShape, required: true, ref: policyCertificateRefs},
	{name: "sni_certificate_paths", shape: listShape, item: certificatePaths, ref: policyCertificateRefs},
	{name: "client_auth", shape: stringShape, def: `"IGNORE"`, oneOf: []string{"IGNORE", "REQUIRED"}},
	{name: "client_auth_ca_paths", shape: listShape, item: certificatePaths, ref: policyCertificateRefs},
	{name: "certificate_chain_depth", shape: intShape, def: "3", min: 1, max: 2147483647},
}

var policyServerBindingFields = []field{
	{name: "ssl_profile_path", shape: stringShape, ref: []Kind{KindPolicyServerSSLProfile}},
	{name: "client_certificate_path", shape: stringShape, ref: policyCertificateRefs},
	{name: "server_auth", shape: stringShape, def: `"AUTO_APPLY"`, oneOf: []string{"IGNORE", "REQUIRED", "AUTO_APPLY"}},
	{name: "server_auth_ca_paths", shape: listShape, item: certificatePaths, ref: policyCertificateRefs},
	{name: "certificate_chain_depth", shape: intShape, def: "3", min: 1, max: 2147483647},
}

// policyRuleFields are those of the Manager's rules, whose types begin with LB
// here, and which have defaults.
func policyRuleFields() []field {
	fields := slices.Clone(ruleFields)
	for i, f := range fields {
		switch f.name {
		case "actions":
			actions := slices.Clone(f.fields)
			for j, a := range actions {
				switch a.name {
				case "type":
					actions[j].oneOf = nil
					for _, t := range a.oneOf {
						actions[j].oneOf = append(actions[j].oneOf, strings.Replace(t, "Lb", "LB", 1))
					}
				case "pool_id": // a path, whatever it is called
					actions[j].ref = []Kind{KindPolicyPool}
				case "persistence_profile_id":
					actions[j].name, actions[j].ref = "persistence_profile_path", []Kind{KindPolicyPersistence}
				}
			}
			fields[i].fields = actions
		case "match_conditions":
			conditions := slices.Clone(f.fields)
			for j, c := range conditions {
				if c.name == "group_id" {
					conditions[j].name, conditions[j].ref = "group_path", []Kind{KindPolicyGroup}
				}
			}
			fields[i].fields = conditions
		case "match_strategy":
			fields[i].required, fields[i].def = false, `"ANY"`
		case "phase":
			fields[i].required, fields[i].def = false, `"HTTP_FORWARDING"`
		}
	}
	return fields
}

// policyLayer7Only are the members of a virtual server that need an LBHttpProfile.
var policyLayer7Only = []string{"client_ssl_profile_binding", "server_ssl_profile_binding", "rules"}

// checkPolicyLayer7 holds a virtual server's members against the layer it works on.
func checkPolicyLayer7(c *change, layer7 bool) *Error {
	for _, name := range policyLayer7Only {
		if raw := string(c.doc[name]); !layer7 && raw != "" && raw != "[]" {
			return refusePolicy(codePolicyInvalid, "%s needs a virtual server with an LBHttpProfile: path=[%s].", name, c.id)
		}
	}
	if binding := c.doc.object("client_ssl_profile_binding"); binding.str("client_auth") == "REQUIRED" && len(binding.strs("client_auth_ca_paths")) == 0 {
		return invalid("client_ssl_profile_binding.client_auth_ca_paths is required")
	}
	if binding := c.doc.object("server_ssl_profile_binding"); binding.str("server_auth") == "REQUIRED" && len(binding.strs("server_auth_ca_paths")) == 0 {
		return invalid("server_ssl_profile_binding.server_auth_ca_paths is required")
	}
	for i, rule := range c.doc.objects("rules") {
		if problem := ruleProblem(managerRule(rule)); problem != nil {
			if problem.Code == codeValidation {
				return invalid(fmt.Sprintf("rules[%d]: %s", i, problem.Message))
			}
			return refusePolicy(codePolicyInvalid, "rules[%d]: %s", i, problem.Message)
		}
	}
	return nil
}

// managerRule gives a rule as the Manager has it, but for the ids of pools.
func managerRule(rule document) document {
	doc := maps.Clone(rule)
	for _, list := range []string{"actions", "match_conditions"} {
		items := rule.objects(list)
		for _, item := range items {
			item.set("type", strings.Replace(item.str("type"), "LB", "Lb", 1))
		}
		if items != nil {
			doc.set(list, items)
		}
	}
	return doc
}

// makeRules makes the Manager's rules of a virtual server. Those that it no longer
// has are left for when the virtual server does not refer to them any more.
func (s *Sim) makeRules(o *object, rec *realization) (ids []string, left []objectRef, err *Error) {
	var tags json.RawMessage = managerDoc(o)["tags"]
	for i, rule := range o.doc.objects("rules") {
		doc := managerRule(rule)
		actions := doc.objects("actions")
		for _, a := range actions {
			if path := a.str("pool_id"); path != "" {
				a.set("pool_id", s.uidAt(KindPolicyPool, path))
			}
			s.toID(a, "persistence_profile_path", KindPolicyPersistence, "persistence_profile_id")
		}
		doc.set("actions", actions)
		if conditions := doc.objects("match_conditions"); conditions != nil {
			for _, c := range conditions {
				s.toID(c, "group_path", KindPolicyGroup, "group_id")
			}
			doc.set("match_conditions", conditions)
		}
		doc["tags"] = tags
		id := uuid.NewSHA1(uuid.NameSpaceURL, fmt.Appendf(nil, "%s/rules/%d", rec.uid, i)).String()
		if err := s.make(rec, o.id, KindRule, id, doc); err != nil {
			return nil, nil, err
		}
		ids = append(ids, id)
	}
	for _, ref := range rec.objects {
		if ref.kind == KindRule && !slices.Contains(ids, ref.id) {
			left = append(left, ref)
		}
	}
	return ids, left, nil
}

// bindingOf gives an SSL binding, or monitor's one, as the Manager has it.
func (s *Sim) bindingOf(binding document, profile Kind) document {
	doc := maps.Clone(binding)
	s.toID(doc, "ssl_profile_path", profile, "ssl_profile_id")
	for _, name := range []string{"default_certificate", "client_certificate"} {
		s.toID(doc, name+"_path", KindPolicyCertificate, name+"_id")
	}
	for _, name := range []string{"sni_certificate", "client_auth_ca", "server_auth_ca"} {
		if paths := doc.strs(name + "_paths"); len(paths) > 0 {
			ids := make([]string, len(paths))
			for i, path := range paths {
				ids[i] = s.uidAt(KindPolicyCertificate, path)
			}
			doc.set(name+"_ids", ids)
		}
		delete(doc, name+"_paths")
	}
	return doc
}
