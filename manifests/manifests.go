// Package manifests holds the Kubernetes objects that install the controller, and examples of what it serves, as files
// for users and for the lab.
package manifests

import "embed"

// FS has the manifests, and the examples in the directory examples.
//
//go:embed *.yaml examples/*.yaml
var FS embed.FS
