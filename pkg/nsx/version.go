package nsx

import (
	"fmt"
	"strings"
)

// Version is a release of NSX. The zero Version is one that is not known.
type Version struct{ Major, Minor int }

// ParseVersion reads what NSX says of itself, such as 3.2.3.0.0.21703641.
func ParseVersion(s string) (Version, error) {
	var v Version
	if _, err := fmt.Sscanf(strings.TrimSpace(s), "%d.%d", &v.Major, &v.Minor); err != nil {
		return Version{}, fmt.Errorf("%q is no version of NSX: %w", s, err)
	}
	return v, nil
}

// AccessLists tells whether virtual servers can let in some clients alone (access_list_control): from NSX 3.0 on.
func (v Version) AccessLists() bool { return v.Major >= 3 }

func (v Version) String() string {
	if v == (Version{}) {
		return "of unknown version"
	}
	return fmt.Sprintf("%d.%d", v.Major, v.Minor)
}
