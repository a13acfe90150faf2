//go:build tools

// Package tools names what hack/build-e2e.sh builds of other modules, for go.mod to know it.
package tools

import (
	_ "k8s.io/kubernetes/test/e2e"
	_ "k8s.io/kubernetes/test/images/agnhost"
)
