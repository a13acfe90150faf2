package config

import (
	"fmt"
	"reflect"

	"go.yaml.in/yaml/v3"
)

// kubeProxyHealthCheck is where kube-proxy says whether its node is fit for
// load balancer traffic (KEP-3836): not when it is being deleted or when the
// proxy is out of date.
var kubeProxyHealthCheck = HealthCheck{Port: 10256, Path: "/healthz"}

// setDefaults fills v, a new value of the schema, with the defaults of its
// tags. It panics if a tag is not a value of its field.
func setDefaults(v reflect.Value) {
	if v.Kind() != reflect.Struct {
		return
	}
	if v.Type().PkgPath() != reflect.TypeFor[CloudConfig]().PkgPath() {
		return // a value from elsewhere, such as a netip.Prefix
	}
	d := &document{at: map[string]position{}}
	for _, f := range fieldsOf(v.Type()) {
		if !f.hasDefault {
			setDefaults(v.Field(f.index))
			continue
		}
		d.value(&yaml.Node{Kind: yaml.ScalarNode, Value: f.fallback}, f.name, v.Field(f.index), f)
	}
	if len(d.errs) > 0 {
		panic(fmt.Sprintf("bad default in %s: %v", v.Type(), d.errs))
	}
}

// setDependentDefaults fills in the defaults that depend on other keys.
func setDependentDefaults(c *CloudConfig) {
	if c.NSX.Authentication == "" && c.NSX.Credentials.ClientCertificate == nil {
		c.NSX.Authentication = AuthenticationSession
	}
	if limit := &c.NSX.RateLimit; limit.Burst == 0 {
		limit.Burst = max(1, limit.RequestsPerSecond/2)
	}
	if limit := &c.NSX.RateLimit; limit.AuditRequestsPerSecond == 0 {
		limit.AuditRequestsPerSecond = max(1, limit.RequestsPerSecond/10)
	}
	for i := range c.LoadBalancer.IPPools {
		if pool := &c.LoadBalancer.IPPools[i]; pool.ID == "" {
			pool.ID = pool.Name
		}
	}
	for i := range c.LoadBalancer.Classes {
		if monitor := &c.LoadBalancer.Classes[i].Monitor; monitor.Timeout == 0 {
			monitor.Timeout = monitor.Interval
		}
	}
}
