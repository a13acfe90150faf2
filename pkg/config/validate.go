package config

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"k8s.io/apimachinery/pkg/util/validation"
)

// validator checks what the types of the values cannot tell, and brings values
// that can be written in several ways into one form.
type validator struct {
	*document
	broken []string // paths of which the values could not be decoded
}

// validate checks c, which was decoded from d and has its defaults.
func validate(d *document, c *CloudConfig) {
	v := validator{document: d, broken: slices.Clone(d.misspelt)}
	for _, e := range d.errs {
		v.broken = append(v.broken, e.Key)
	}
	v.name("cluster.name", c.Cluster.Name)
	v.name("cluster.id", c.Cluster.ID)
	v.nsx("nsx", &c.NSX)
	for i := range c.VCenters {
		v.vcenter(fmt.Sprintf("vcenters[%d]", i), &c.VCenters[i])
	}
	distinct(v, "vcenters", ".server", c.VCenters, func(vc VCenter) string { return vc.Server })
	v.nodes("nodes", &c.Nodes)
	v.loadBalancer("loadBalancer", &c.LoadBalancer)
}

// isBroken tells whether key, or a section or list that it is in, could not be
// decoded: what it holds then is nothing that the file says.
func (v validator) isBroken(key string) bool {
	return slices.ContainsFunc(v.broken, func(broken string) bool {
		rest, ok := strings.CutPrefix(key, broken)
		return ok && broken != "" && (rest == "" || rest[0] == '.' || rest[0] == '[')
	})
}

// check complains about key unless ok, or if it is broken.
func (v validator) check(ok bool, key, format string, args ...any) {
	if !ok && !v.isBroken(key) {
		v.errorf(key, format, args...)
	}
}

func (v validator) nsx(path string, nsx *NSX) {
	for i := range nsx.Managers {
		v.server(fmt.Sprintf("%s.managers[%d]", path, i), &nsx.Managers[i])
	}
	distinct(v, path+".managers", "", nsx.Managers, itself)
	v.credentials(path+".credentials", nsx.Credentials)
	v.check(nsx.Authentication == "" || nsx.Credentials.ClientCertificate == nil, path+".authentication",
		"is for user name and password; a client certificate authenticates by itself")
	v.absolute(path+".caFile", nsx.CAFile)
	v.trust(path, nsx.InsecureSkipVerify, nsx.CAFile, "")
}

func (v validator) vcenter(path string, vc *VCenter) {
	v.server(path+".server", &vc.Server)
	v.check(vc.Credentials.ClientCertificate == nil, path+".credentials.clientCertificate",
		"is for NSX only; a vCenter takes credentials from file, env or secret")
	v.credentials(path+".credentials", vc.Credentials)
	v.absolute(path+".caFile", vc.CAFile)
	v.thumbprint(path+".thumbprint", &vc.Thumbprint)
	v.trust(path, vc.InsecureSkipVerify, vc.CAFile, vc.Thumbprint)
	for i, datacenter := range vc.Datacenters {
		v.object(fmt.Sprintf("%s.datacenters[%d]", path, i), datacenter)
	}
	distinct(v, path+".datacenters", "", vc.Datacenters, itself)
	v.object(path+".zoneTagCategory", vc.ZoneTagCategory)
	v.object(path+".regionTagCategory", vc.RegionTagCategory)
	v.check(vc.ZoneTagCategory != vc.RegionTagCategory, path+".zoneTagCategory",
		"must differ from regionTagCategory, is %q too", vc.RegionTagCategory)
}

// credentials checks that there is one source, and that it can be one.
func (v validator) credentials(path string, c Credentials) {
	var sources []string
	for _, source := range []struct {
		key   string
		given bool
	}{
		{"file", c.File != ""},
		{"env", c.Env != nil},
		{"secret", c.Secret != nil},
		{"clientCertificate", c.ClientCertificate != nil},
	} {
		if source.given || v.isBroken(path+"."+source.key) {
			sources = append(sources, source.key)
		}
	}
	v.check(len(sources) > 0, path, "needs a source: one of file, env, secret, clientCertificate (NSX only)")
	v.check(len(sources) < 2, path, "needs exactly one source, has %s", strings.Join(sources, " and "))
	v.absolute(path+".file", c.File)
	if c.Env != nil {
		v.variable(path+".env.username", c.Env.Username)
		v.variable(path+".env.password", c.Env.Password)
	}
	if c.Secret != nil {
		v.check(len(validation.IsDNS1123Label(c.Secret.Namespace)) == 0, path+".secret.namespace",
			"%q cannot be the name of a namespace", c.Secret.Namespace)
		v.check(len(validation.IsDNS1123Subdomain(c.Secret.Name)) == 0, path+".secret.name",
			"%q cannot be the name of a Secret", c.Secret.Name)
	}
	if c.ClientCertificate != nil {
		v.absolute(path+".clientCertificate.certFile", c.ClientCertificate.CertFile)
		v.absolute(path+".clientCertificate.keyFile", c.ClientCertificate.KeyFile)
	}
}

// trust checks that there is one answer to whom to trust.
func (v validator) trust(path string, insecure bool, caFile, thumbprint string) {
	v.check(!insecure || caFile == "" && thumbprint == "", path+".insecureSkipVerify",
		"trusts everybody; drop it, or what says whom to trust (caFile, thumbprint)")
	v.check(caFile == "" || thumbprint == "", path+".thumbprint", "is instead of caFile; drop one")
}

func (v validator) nodes(path string, n *Nodes) {
	networks := func(key string, list []netip.Prefix) {
		distinct(v, key, "", list, netip.Prefix.String)
		for i, network := range list {
			v.check(n.AllowLoopbackAddresses || !network.Addr().IsLoopback(), fmt.Sprintf("%s[%d]", key, i),
				"%s is on the node itself; real nodes are not reached there (for simulated ones: allowLoopbackAddresses)", network)
		}
	}
	networks(path+".internalNetworks", n.InternalNetworks)
	networks(path+".externalNetworks", n.ExternalNetworks)
	for i, external := range n.ExternalNetworks {
		for _, internal := range n.InternalNetworks {
			v.check(!external.Overlaps(internal), fmt.Sprintf("%s.externalNetworks[%d]", path, i),
				"%s overlaps %s of internalNetworks; an address is either internal or external", external, internal)
		}
	}
}

func (v validator) loadBalancer(path string, lb *LoadBalancer) {
	pools, classes := path+".ipPools", path+".classes"
	for i, pool := range lb.IPPools {
		v.name(fmt.Sprintf("%s[%d].name", pools, i), pool.Name)
		v.object(fmt.Sprintf("%s[%d].id", pools, i), pool.ID)
	}
	distinct(v, pools, ".name", lb.IPPools, func(p IPPool) string { return p.Name })
	distinct(v, pools, ".id", lb.IPPools, func(p IPPool) string { return p.ID })

	for i := range lb.Classes {
		v.class(fmt.Sprintf("%s[%d]", classes, i), &lb.Classes[i], lb)
	}
	distinct(v, classes, ".name", lb.Classes, func(c Class) string { return c.Name })
	v.gatewaySizes(classes, lb.Classes)
	v.defaultClass(path, lb)
}

func (v validator) class(path string, c *Class, lb *LoadBalancer) {
	v.name(path+".name", c.Name)
	v.poolNames(path+".ipPools", c.IPPools, lb)

	services, gateways := path+".loadBalancerServices", path+".tier1Gateways"
	if !v.isBroken(services) && !v.isBroken(gateways) {
		v.check(len(c.LoadBalancerServices)+len(c.Tier1Gateways) > 0, path,
			"needs a place for virtual servers: loadBalancerServices or tier1Gateways")
		v.check(len(c.LoadBalancerServices) == 0 || len(c.Tier1Gateways) == 0, services,
			"cannot go with tier1Gateways: a class uses either existing load-balancer services or its own")
	}
	for i, service := range c.LoadBalancerServices {
		v.object(fmt.Sprintf("%s[%d]", services, i), service)
	}
	distinct(v, services, "", c.LoadBalancerServices, itself)
	for i, gateway := range c.Tier1Gateways {
		v.object(fmt.Sprintf("%s[%d].id", gateways, i), gateway.ID)
	}
	distinct(v, gateways, ".id", c.Tier1Gateways, func(g Tier1Gateway) string { return g.ID })

	v.object(path+".applicationProfiles.tcp", c.ApplicationProfiles.TCP)
	v.object(path+".applicationProfiles.udp", c.ApplicationProfiles.UDP)
	if !c.HealthCheck.None() {
		v.requestPath(path+".healthCheck.path", c.HealthCheck.Path)
	}
	v.wholeSeconds(path+".monitor.interval", c.Monitor.Interval)
	if c.Monitor.Timeout != c.Monitor.Interval { // which is its default
		v.wholeSeconds(path+".monitor.timeout", c.Monitor.Timeout)
	}
}

// poolNames checks that the pools that a class names are configured.
func (v validator) poolNames(path string, names []string, lb *LoadBalancer) {
	distinct(v, path, "", names, itself)
	known, certain := namesIn(v, "loadBalancer.ipPools", lb.IPPools, func(p IPPool) string { return p.Name })
	for i, name := range names {
		v.check(slices.Contains(known, name) || !certain, fmt.Sprintf("%s[%d]", path, i),
			"no IP pool of loadBalancer.ipPools is called %q%s", name, instead(name, known))
	}
}

// gatewaySizes checks that classes agree on the size of the load balancer
// service of a gateway, as a gateway has at most one.
func (v validator) gatewaySizes(path string, classes []Class) {
	type owner struct {
		class string
		size  Size
	}
	first := map[string]owner{}
	for i, class := range classes {
		for j, gateway := range class.Tier1Gateways {
			other, ok := first[gateway.ID]
			if !ok {
				first[gateway.ID] = owner{class.Name, gateway.Size}
				continue
			}
			v.check(gateway.Size == other.size, fmt.Sprintf("%s[%d].tier1Gateways[%d].size", path, i, j),
				"%s differs from %s in class %q; a gateway has one load-balancer service", gateway.Size, other.size, other.class)
		}
	}
}

func (v validator) defaultClass(path string, lb *LoadBalancer) {
	known, certain := namesIn(v, path+".classes", lb.Classes, func(c Class) string { return c.Name })
	v.check(slices.Contains(known, lb.DefaultClass) || !certain, path+".defaultClass",
		"no class of %s.classes is called %q%s", path, lb.DefaultClass, instead(lb.DefaultClass, known))
}

// namesIn returns the names of the items of the list at path, and whether it
// is certain that there are no others.
func namesIn[T any](v validator, path string, items []T, name func(T) string) (names []string, certain bool) {
	certain = !v.isBroken(path)
	for i, item := range items {
		names = append(names, name(item))
		certain = certain && !v.isBroken(fmt.Sprintf("%s[%d].name", path, i))
	}
	return names, certain
}

// instead says what there is in place of a name that is not.
func instead(name string, known []string) string {
	if guess, ok := closest(name, known); ok {
		return fmt.Sprintf("; did you mean %q?", guess)
	}
	if len(known) == 0 {
		return "; there is none"
	}
	return fmt.Sprintf("; there is %q", known)
}

func itself(s string) string { return s }

// distinct checks that no two items of the list at path have the same name,
// which is the item itself or its key suffix. Items without a name have been
// complained about.
func distinct[T any](v validator, path, suffix string, items []T, name func(T) string) {
	first := map[string]int{}
	for i, item := range items {
		key, name := fmt.Sprintf("%s[%d]%s", path, i, suffix), name(item)
		if name == "" || v.isBroken(key) {
			continue
		}
		if j, ok := first[name]; ok {
			v.errorf(key, "duplicate: %q is %s[%d]%s already", name, path, j, suffix)
			continue
		}
		first[name] = i
	}
}

var nameForm = regexp.MustCompile(`^[A-Za-z0-9]([-_.A-Za-z0-9]{0,61}[A-Za-z0-9])?$`)

// name checks a name of ours: it goes into tags, annotations and load balancer
// classes (nsxt.io/<class>), so it has the form of a label value.
func (v validator) name(key, name string) {
	v.check(name == "" || nameForm.MatchString(name), key,
		"must be at most 63 letters, digits, '-', '_' or '.', with a letter or digit first and last; is %q", name)
}

// object checks the id or display name of an object of NSX or vCenter.
func (v validator) object(key, name string) {
	v.check(len(name) <= 255, key, "longer than 255 characters: neither an id nor a display name")
	v.check(strings.TrimSpace(name) == name && !strings.ContainsFunc(name, unicode.IsControl), key,
		"%q has blanks around it or control characters in it", name)
}

func (v validator) variable(key, name string) {
	v.check(len(validation.IsCIdentifier(name)) == 0, key,
		"must be the name of an environment variable, such as NSX_PASSWORD, not what it holds")
}

func (v validator) absolute(key, path string) {
	v.check(path == "" || filepath.IsAbs(path), key, "must be an absolute path")
}

func (v validator) requestPath(key, path string) {
	parsed, err := url.ParseRequestURI(path)
	v.check(err == nil && strings.HasPrefix(path, "/") && parsed.Host == "" && !strings.ContainsAny(path, "# "), key,
		"%q is not the path of a URL, such as /healthz", path)
}

func (v validator) wholeSeconds(key string, value time.Duration) {
	v.check(value%time.Second == 0, key, "must be in whole seconds, as NSX counts; is %s", value)
}

// thumbprint checks a certificate's fingerprint and brings it into the form
// that govmomi compares with: upper case.
func (v validator) thumbprint(key string, value *string) {
	if *value == "" {
		return
	}
	raw, err := hex.DecodeString(strings.ReplaceAll(*value, ":", ""))
	colons := strings.Count(*value, ":")
	v.check(err == nil && (len(raw) == 20 || len(raw) == 32) && colons == len(raw)-1, key,
		"must be the SHA-1 (20) or SHA-256 (32) bytes of a certificate in hexadecimal, joined by colons: AB:CD:...")
	*value = strings.ToUpper(*value)
}

// server checks the address of a server and makes it a URL of only scheme,
// host and, unless it is the usual one, port.
func (v validator) server(key string, value *string) {
	if v.isBroken(key) {
		return
	}
	canonical, problem := serverURL(*value)
	v.check(problem == "", key, "%s", problem)
	*value = canonical // Empty if bad: the value may hold a password.
}

// serverURL returns the canonical form of a server's address or what is wrong
// with it. The problem never quotes the address: it may hold a password.
func serverURL(address string) (canonical, problem string) {
	const expected = "must be a host, host:port or https URL, such as nsx1.example.com or https://nsx1.example.com:8443"
	if ip, err := netip.ParseAddr(address); err == nil && ip.Is6() {
		address = "[" + address + "]"
	}
	if !strings.Contains(address, "://") {
		address = "https://" + address
	}
	u, err := url.Parse(address)
	if err != nil {
		return "", expected
	}
	if u.User != nil {
		return "", "must not contain a user name or password; see credentials"
	}
	host := strings.ToLower(u.Hostname())
	ip, notIP := netip.ParseAddr(host)
	if notIP != nil && len(validation.IsDNS1123Subdomain(host)) > 0 || ip.Zone() != "" {
		return "", expected
	}
	switch {
	case u.Scheme != "https" && u.Scheme != "http":
		return "", expected
	case u.Scheme == "http" && !ip.IsLoopback() && host != "localhost":
		return "", "must be an https URL: plain http would show the credentials to the network (it is allowed on loopback addresses only)"
	case strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || strings.HasSuffix(address, "#"):
		return "", "must end after host and port: a path or query does not belong here"
	}
	if ip.Is6() {
		host = "[" + host + "]"
	}
	if u.Port() != "" {
		port, err := strconv.ParseUint(u.Port(), 10, 16)
		if err != nil || port == 0 {
			return "", "the port must be from 1 to 65535"
		}
		if usual := map[string]uint64{"https": 443, "http": 80}; port != usual[u.Scheme] {
			host += ":" + strconv.FormatUint(port, 10)
		}
	}
	return u.Scheme + "://" + host, ""
}
