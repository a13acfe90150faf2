package config

// Class returns the class called name.
func (c *CloudConfig) Class(name string) (Class, bool) {
	for _, class := range c.LoadBalancer.Classes {
		if class.Name == name {
			return class, true
		}
	}
	return Class{}, false
}

// DefaultClass returns the class for Services that name none.
func (c *CloudConfig) DefaultClass() (Class, bool) {
	return c.Class(c.LoadBalancer.DefaultClass)
}

// IPPool returns the IP pool called name.
func (c *CloudConfig) IPPool(name string) (IPPool, bool) {
	for _, pool := range c.LoadBalancer.IPPools {
		if pool.Name == name {
			return pool, true
		}
	}
	return IPPool{}, false
}

// None tells whether nodes are not to be checked at all: the zero value.
func (h HealthCheck) None() bool { return h == HealthCheck{} }
