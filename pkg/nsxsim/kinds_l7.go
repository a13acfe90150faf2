package nsxsim

import (
	"fmt"
	"strings"
)

// The fields of what layer 7 needs: rules, SSL profiles and their bindings, TCP
// profiles.

var ruleFields = []field{
	{name: "actions", shape: listShape, required: true, min: 1, max: 60, fields: []field{
		{name: "type", shape: stringShape, required: true, oneOf: []string{
			"LbSelectPoolAction", "LbSelectServerAction", "LbHttpRequestUriRewriteAction", "LbHttpRequestHeaderRewriteAction",
			"LbHttpRequestHeaderDeleteAction", "LbHttpResponseHeaderRewriteAction", "LbHttpResponseHeaderDeleteAction",
			"LbHttpRejectAction", "LbHttpRedirectAction", "LbConnectionDropAction", "LbVariableAssignmentAction",
			"LbVariablePersistenceOnAction", "LbVariablePersistenceLearnAction", "LbJwtAuthAction", "LbSslModeSelectionAction"}},
		{name: "pool_id", shape: stringShape, ref: []Kind{KindPool}},
		{name: "persistence_profile_id", shape: stringShape, ref: []Kind{KindPersistenceProfile}},
	}},
	{name: "match_conditions", shape: listShape, max: 60, fields: []field{
		{name: "type", shape: stringShape, required: true},
		{name: "group_id", shape: stringShape, ref: []Kind{KindNSGroup}},
	}},
	{name: "match_strategy", shape: stringShape, required: true, oneOf: []string{"ALL", "ANY"}},
	{name: "phase", shape: stringShape, required: true, oneOf: []string{
		"HTTP_REQUEST_REWRITE", "HTTP_FORWARDING", "HTTP_RESPONSE_REWRITE", "HTTP_ACCESS", "TRANSPORT"}},
}

// What an action of a rule needs, by its type.
var actionNeeds = map[string][]string{
	"LbSelectPoolAction":                {"pool_id"},
	"LbHttpRequestUriRewriteAction":     {"uri"},
	"LbHttpRequestHeaderRewriteAction":  {"header_name", "header_value"},
	"LbHttpResponseHeaderRewriteAction": {"header_name", "header_value"},
	"LbHttpRequestHeaderDeleteAction":   {"header_name"},
	"LbHttpResponseHeaderDeleteAction":  {"header_name"},
	"LbHttpRejectAction":                {"reply_status"},
	"LbHttpRedirectAction":              {"redirect_status", "redirect_url"},
	"LbVariableAssignmentAction":        {"variable_name", "variable_value"},
	"LbVariablePersistenceOnAction":     {"variable_name"},
	"LbVariablePersistenceLearnAction":  {"variable_name"},
	"LbSslModeSelectionAction":          {"ssl_mode"},
}

// The phase that an action belongs to; those not named fit several.
var actionPhases = map[string]string{
	"LbSelectPoolAction":                "HTTP_FORWARDING",
	"LbHttpRequestUriRewriteAction":     "HTTP_REQUEST_REWRITE",
	"LbHttpRequestHeaderRewriteAction":  "HTTP_REQUEST_REWRITE",
	"LbHttpRequestHeaderDeleteAction":   "HTTP_REQUEST_REWRITE",
	"LbHttpResponseHeaderRewriteAction": "HTTP_RESPONSE_REWRITE",
	"LbHttpResponseHeaderDeleteAction":  "HTTP_RESPONSE_REWRITE",
}

func checkRule(c *change) *Error { return ruleProblem(c.doc) }

// ruleProblem tells what the actions of a rule lack.
func ruleProblem(rule document) *Error {
	phase := rule.str("phase")
	for i, action := range rule.objects("actions") {
		kind := action.str("type")
		for _, name := range actionNeeds[kind] {
			if action.str(name) == "" {
				return invalid(fmt.Sprintf("actions[%d].%s is required", i, name))
			}
		}
		if wants := actionPhases[kind]; wants != "" && wants != phase {
			return refuseLB(codeLBConflict, "An action of type %s does not fit phase %s.", kind, phase)
		}
	}
	return nil
}

var tlsProtocols = field{shape: stringShape, oneOf: []string{"SSL_V2", "SSL_V3", "TLS_V1", "TLS_V1_1", "TLS_V1_2"}}

// sslFields are those of SSL profiles of both sides.
var sslFields = []field{
	{name: "cipher_group_label", shape: stringShape, oneOf: []string{"BALANCED", "HIGH_SECURITY", "HIGH_COMPATIBILITY", "CUSTOM"}},
	{name: "ciphers", shape: listShape, item: &field{shape: stringShape, min: 1}},
	{name: "protocols", shape: listShape, def: `["TLS_V1_1","TLS_V1_2"]`, item: &tlsProtocols},
	{name: "session_cache_enabled", shape: boolShape, def: "true"},
	{name: "is_secure", readOnly: true},
	{name: "is_fips", readOnly: true},
}

var clientSSLFields = append([]field{
	{name: "prefer_server_ciphers", shape: boolShape, def: "true"},
	{name: "session_cache_timeout", shape: intShape, def: "300", min: 1, max: 86400},
}, sslFields...)

// checkSSLProfile tells whether all protocols and ciphers of a profile are held for
// safe.
func checkSSLProfile(c *change) *Error {
	secure := true
	for _, p := range c.doc.strs("protocols") {
		secure = secure && (p == "TLS_V1_1" || p == "TLS_V1_2")
	}
	for _, cipher := range c.doc.strs("ciphers") {
		secure = secure && !strings.Contains(cipher, "_3DES_")
	}
	c.doc.set("is_secure", secure)
	return nil
}

var tcpProfileFields = []field{
	{name: "nagle_algorithm_enabled", shape: boolShape, def: "true"},
	{name: "fin_wait2_timeout", shape: intShape, min: 1, max: 1800},
	{name: "max_syn_retransmissions", shape: intShape, min: 1, max: 60},
	{name: "receive_window_size", shape: intShape, min: 1, max: 2147483647},
	{name: "transmit_window_size", shape: intShape, min: 1, max: 2147483647},
}

var certificateRefs = []Kind{KindCertificate}

var certificateIDs = &field{shape: stringShape, min: 1}

var clientSSLBindingFields = []field{
	{name: "default_certificate_id", shape: stringShape, required: true, ref: certificateRefs},
	{name: "sni_certificate_ids", shape: listShape, item: certificateIDs, ref: certificateRefs},
	{name: "client_auth", shape: stringShape, def: `"IGNORE"`, oneOf: []string{"IGNORE", "REQUIRED"}},
	{name: "client_auth_ca_ids", shape: listShape, item: certificateIDs, ref: certificateRefs},
	{name: "certificate_chain_depth", shape: intShape, def: "3", min: 1, max: 2147483647},
	{name: "ssl_profile_id", shape: stringShape, ref: []Kind{KindClientSSLProfile}},
}

var serverSSLBindingFields = []field{
	{name: "server_auth", shape: stringShape, def: `"IGNORE"`, oneOf: []string{"IGNORE", "REQUIRED", "AUTO_APPLY"}},
	{name: "server_auth_ca_ids", shape: listShape, item: certificateIDs, ref: certificateRefs},
	{name: "client_certificate_id", shape: stringShape, ref: certificateRefs},
	{name: "certificate_chain_depth", shape: intShape, def: "3", min: 1, max: 2147483647},
	{name: "ssl_profile_id", shape: stringShape, ref: []Kind{KindServerSSLProfile}},
}

// layer7Only are the members of a virtual server that need an LbHttpProfile.
var layer7Only = []string{"client_ssl_profile_binding", "server_ssl_profile_binding", "rule_ids", "client_tcp_profile_id", "server_tcp_profile_id"}

// checkLayer7 holds a virtual server's members against the layer it works on.
func checkLayer7(c *change, profile *object) *Error {
	if profile.doc.str("resource_type") != "LbHttpProfile" {
		for _, name := range layer7Only {
			if raw := string(c.doc[name]); raw != "" && raw != "[]" && raw != `""` {
				return refuseLB(codeLBConflict, "%s needs a virtual server with an LbHttpProfile.", name)
			}
		}
	}
	if client := c.doc.object("client_ssl_profile_binding"); client.str("client_auth") == "REQUIRED" && len(client.strs("client_auth_ca_ids")) == 0 {
		return invalid("client_ssl_profile_binding.client_auth_ca_ids is required")
	}
	if server := c.doc.object("server_ssl_profile_binding"); server.str("server_auth") == "REQUIRED" && len(server.strs("server_auth_ca_ids")) == 0 {
		return invalid("server_ssl_profile_binding.server_auth_ca_ids is required")
	}
	return nil
}
