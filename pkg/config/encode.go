package config

import (
	"strings"

	"go.yaml.in/yaml/v3"
)

// String returns the config as YAML, complete with defaults, as [Parse] takes
// it. It holds no secrets.
func (c CloudConfig) String() string {
	var text strings.Builder
	encoder := yaml.NewEncoder(&text)
	encoder.SetIndent(2)
	if err := encoder.Encode(c); err != nil {
		return "cloud config: " + err.Error()
	}
	return text.String()
}

// MarshalYAML returns the shortest form.
func (h HealthCheck) MarshalYAML() (any, error) {
	switch h {
	case HealthCheck{}:
		return healthCheckNone, nil
	case kubeProxyHealthCheck:
		return healthCheckKubeProxy, nil
	}
	type section HealthCheck // without this method
	return section(h), nil
}
