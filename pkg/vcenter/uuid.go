package vcenter

import (
	"fmt"
	"slices"
	"strings"

	"github.com/google/uuid"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/names"
)

// migratedScheme is the scheme of the vSphere cloud provider. A provider id never changes during a Node's life, so
// a cluster that comes from that provider keeps it.
const migratedScheme = "vsphere"

// ProviderID is the provider id of the node on the VM with the given BIOS UUID: nsxt://<uuid>, in lower case.
func ProviderID(biosUUID string) string {
	return names.Provider + "://" + strings.ToLower(biosUUID)
}

// ParseProviderID returns the BIOS UUID in a provider id, in lower case. It accepts nsxt://<uuid> and, for nodes
// that another provider initialised, vsphere://<uuid>.
func ParseProviderID(id string) (string, error) {
	scheme, rest, found := strings.Cut(id, "://")
	if !found || scheme != names.Provider && scheme != migratedScheme {
		return "", fmt.Errorf("provider id %q is not of the form %s://<BIOS UUID>", id, names.Provider)
	}
	parsed, err := parseUUID(rest)
	if err != nil {
		return "", fmt.Errorf("provider id %q: %w", id, err)
	}
	return parsed.String(), nil
}

// parseUUID accepts the plain form of 36 characters only, in any case.
func parseUUID(text string) (uuid.UUID, error) {
	if len(text) != 36 {
		return uuid.UUID{}, fmt.Errorf("%q is not a UUID", text)
	}
	parsed, err := uuid.Parse(text)
	if err != nil {
		return uuid.UUID{}, fmt.Errorf("%q is not a UUID: %w", text, err)
	}
	return parsed, nil
}

// byteOrders lists a BIOS UUID as given and with the bytes of its first three fields reversed. SMBIOS before
// version 2.6 does not say in which order they are stored, so the systemUUID that a guest reads can be either form
// of the UUID that vCenter shows, depending on the VM's hardware version and on the guest.
func byteOrders(id uuid.UUID) []string {
	swapped := id
	slices.Reverse(swapped[0:4])
	slices.Reverse(swapped[4:6])
	slices.Reverse(swapped[6:8])
	if swapped == id {
		return []string{id.String()}
	}
	return []string{id.String(), swapped.String()}
}
