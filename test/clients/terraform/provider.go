// Package terraform names VMware's Terraform provider for NSX-T, as it is published,
// and all that it needs: hack/test-clients.sh runs its acceptance tests against the
// simulator. It is a module of its own so that the product does not depend on it.
package terraform

import _ "github.com/terraform-providers/terraform-provider-nsxt/nsxt"
