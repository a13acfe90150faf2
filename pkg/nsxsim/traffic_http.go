package nsxsim

import (
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim/dataplane"
)

// httpOf tells what a layer 7 virtual server does with requests; nil: it is one of
// layer 4.
func (s *traffic) httpOf(vs *object) *dataplane.HTTP {
	profile := s.store.get(KindApplicationProfile, vs.doc.str("application_profile_id")).doc
	if profile.str("resource_type") != "LbHttpProfile" {
		return nil
	}
	h := &dataplane.HTTP{
		XForwardedFor:     dataplane.XForwardedFor(profile.str("x_forwarded_for")),
		RedirectToHTTPS:   profile.boolean("http_redirect_to_https"),
		RedirectTo:        profile.str("http_redirect_to"),
		RequestHeaderSize: count(profile, "request_header_size"),
		RequestBodySize:   int64(count(profile, "request_body_size")),
		ResponseTimeout:   seconds(profile, "response_timeout"),
		ServerKeepAlive:   profile.boolean("ntlm") || profile.boolean("server_keep_alive"),
		Cookie:            s.cookieOf(vs.doc.str("persistence_profile_id")),
	}
	if binding := vs.doc.object("client_ssl_profile_binding"); binding.has("default_certificate_id") {
		h.ToClient = s.tlsOf(binding, KindClientSSLProfile)
		for _, id := range append([]string{binding.str("default_certificate_id")}, binding.strs("sni_certificate_ids")...) {
			h.ToClient.Certificates = append(h.ToClient.Certificates, s.certificates(id)...)
		}
		if binding.str("client_auth") == "REQUIRED" {
			h.ToClient.VerifyPeer, h.ToClient.CAs = true, s.authorities(binding.strs("client_auth_ca_ids"))
		}
	}
	if vs.doc.has("server_ssl_profile_binding") {
		h.ToServer = s.serverTLS(vs.doc.object("server_ssl_profile_binding"))
	}
	for _, id := range vs.doc.strs("rule_ids") {
		h.Rules = append(h.Rules, s.ruleOf(vs, s.store.get(KindRule, id)))
	}
	return h
}

// tlsOf gives what a binding, or a monitor, says of either side, with its profile.
func (s *traffic) tlsOf(binding document, profile Kind) *dataplane.TLS {
	t := &dataplane.TLS{ChainDepth: count(binding, "certificate_chain_depth"), Ciphers: binding.strs("ciphers"), Protocols: binding.strs("protocols")}
	if o := s.store.get(profile, binding.str("ssl_profile_id")); o != nil {
		t.Ciphers, t.Protocols = o.doc.strs("ciphers"), o.doc.strs("protocols")
	}
	return t
}

// serverTLS gives what a binding, or a monitor, says of members. AUTO_APPLY verifies
// them where there are authorities to do so with.
func (s *traffic) serverTLS(binding document) *dataplane.TLS {
	t := s.tlsOf(binding, KindServerSSLProfile)
	if id := binding.str("client_certificate_id"); id != "" {
		t.Certificates = s.certificates(id)
	}
	authorities := binding.strs("server_auth_ca_ids")
	switch auth := binding.str("server_auth"); {
	case auth == "REQUIRED", auth == "AUTO_APPLY" && len(authorities) > 0:
		t.VerifyPeer, t.CAs = true, s.authorities(authorities)
	}
	return t
}

// certificates gives the certificate, if its key came with it.
func (s *traffic) certificates(id string) []dataplane.Certificate {
	key, known := s.certificateKeys[id]
	if !known {
		return nil
	}
	return []dataplane.Certificate{{Chain: s.store.get(KindCertificate, id).doc.str("pem_encoded"), Key: key}}
}

func (s *traffic) authorities(ids []string) string {
	var pem strings.Builder
	for _, id := range ids {
		pem.WriteString(s.store.get(KindCertificate, id).doc.str("pem_encoded") + "\n")
	}
	return pem.String()
}

func (s *traffic) cookieOf(id string) *dataplane.CookiePersistence {
	o := s.store.get(KindPersistenceProfile, id)
	if o == nil || o.doc.str("resource_type") != "LbCookiePersistenceProfile" {
		return nil
	}
	c := &dataplane.CookiePersistence{
		Name: o.doc.str("cookie_name"), Mode: dataplane.CookieMode(o.doc.str("cookie_mode")),
		Fallback: o.doc.boolean("cookie_fallback"), Garble: o.doc.boolean("cookie_garble"),
		Domain: o.doc.str("cookie_domain"), Path: o.doc.str("cookie_path"),
		HTTPOnly: o.doc.boolean("cookie_httponly"), Secure: o.doc.boolean("cookie_secure"),
	}
	times := o.doc.object("cookie_time")
	switch times.str("type") {
	case "LbPersistenceCookieTime":
		c.MaxAge = seconds(times, "cookie_max_idle")
	case "LbSessionCookieTime":
		c.MaxIdle, c.MaxLife = seconds(times, "cookie_max_idle"), seconds(times, "cookie_max_life")
	}
	return c
}

func (s *traffic) ruleOf(vs, o *object) dataplane.Rule {
	r := dataplane.Rule{Name: o.id, Phase: dataplane.Phase(o.doc.str("phase")), MatchAny: o.doc.str("match_strategy") == "ANY"}
	for _, c := range o.doc.objects("match_conditions") {
		r.Conditions = append(r.Conditions, s.conditionOf(c))
	}
	for _, a := range o.doc.objects("actions") {
		r.Actions = append(r.Actions, s.actionOf(vs, a))
	}
	return r
}

// conditionMembers are where conditions hold the name and the value to compare.
var conditionMembers = map[dataplane.ConditionType][2]string{
	dataplane.IfMethod:         {"", "method"},
	dataplane.IfURI:            {"", "uri"},
	dataplane.IfURIArguments:   {"", "uri_arguments"},
	dataplane.IfVersion:        {"", "version"},
	dataplane.IfHeader:         {"header_name", "header_value"},
	dataplane.IfCookie:         {"cookie_name", "cookie_value"},
	dataplane.IfBody:           {"", "body_value"},
	dataplane.IfVariable:       {"variable_name", "variable_value"},
	dataplane.IfSNI:            {"", "sni"},
	dataplane.IfResponseHeader: {"header_name", "header_value"},
}

func (s *traffic) conditionOf(doc document) dataplane.Condition {
	c := dataplane.Condition{
		Type:       dataplane.ConditionType(strings.TrimSuffix(strings.TrimPrefix(doc.str("type"), "Lb"), "Condition")),
		Inverse:    doc.boolean("inverse"),
		Match:      dataplane.MatchType(doc.str("match_type")),
		IgnoreCase: doc.has("case_sensitive") && !doc.boolean("case_sensitive"),
	}
	members := conditionMembers[c.Type]
	c.Name, c.Value = doc.str(members[0]), doc.str(members[1])
	switch c.Type {
	case dataplane.IfTCP:
		if ports, err := parsePortRange(doc.str("source_port")); err == nil {
			c.Ports = [2]uint16{ports.first, ports.last}
		}
	case dataplane.IfIP:
		c.Prefixes = []netip.Prefix{}
		if id := doc.str("group_id"); id != "" {
			c.Prefixes = s.group(id)
		} else if r, err := parseAddressRange(doc.str("source_address")); err == nil {
			c.Prefixes = r.Prefixes()
		}
	case dataplane.IfSSL:
		c.Protocol, c.Cipher = doc.str("used_protocol"), doc.str("used_ssl_cipher")
		if reused := doc.str("session_reused"); reused == "REUSED" || reused == "NEW" {
			c.Reused = new(reused == "REUSED")
		}
		for _, name := range []string{"client_certificate_issuer_dn", "client_certificate_subject_dn", "client_supported_ssl_ciphers"} {
			if doc.has(name) {
				c.Type = dataplane.ConditionType("HttpSsl." + name) // which the data plane does not know, and says so
			}
		}
	}
	return c
}

func (s *traffic) actionOf(vs *object, doc document) dataplane.Action {
	a := dataplane.Action{Type: dataplane.ActionType(strings.TrimSuffix(strings.TrimPrefix(doc.str("type"), "Lb"), "Action"))}
	status := func(name string) { a.Status, _ = strconv.Atoi(doc.str(name)) } // the data plane refuses what is none
	switch a.Type {
	case dataplane.SelectPool:
		a.Pool = s.pool(doc.str("pool_id"))
	case dataplane.Reject:
		status("reply_status")
		a.Value = doc.str("reply_message")
	case dataplane.Redirect:
		status("redirect_status")
		a.Value = doc.str("redirect_url")
	case dataplane.RewriteURI:
		a.Value = doc.str("uri")
		if doc.has("uri_arguments") {
			a.Arguments = new(doc.str("uri_arguments"))
		}
	case dataplane.AssignVariable:
		a.Name, a.Value = doc.str("variable_name"), doc.str("variable_value")
	case dataplane.PersistByVariable, dataplane.LearnByVariable:
		a.Name = doc.str("variable_name")
		a.Persistence = s.tableOf(vs, doc.str("persistence_profile_id"))
	default:
		a.Name, a.Value = doc.str("header_name"), doc.str("header_value")
	}
	return a
}

// tableOf gives the table of generic persistence: that of the profile, if it is
// shared, else one of the virtual server and the profile, or of the virtual server
// alone.
func (s *traffic) tableOf(vs *object, id string) *dataplane.Persistence {
	p := &dataplane.Persistence{Shared: vs.id, Timeout: 300 * time.Second}
	if o := s.store.get(KindPersistenceProfile, id); o != nil {
		p.Timeout = seconds(o.doc, "timeout")
		if p.Shared += "/" + id; o.doc.boolean("persistence_shared") {
			p.Shared = id
		}
	}
	return p
}
