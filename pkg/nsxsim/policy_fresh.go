package nsxsim

import (
	"fmt"
	"strings"
)

// adoptSystemObjects makes the intents of the profiles and monitors that the
// Manager has from the start.
func (s *Sim) adoptSystemObjects() error {
	if s.policy == nil {
		return nil
	}
	system := author{user: systemUser, system: true}
	for _, k := range s.policy.kinds {
		for _, o := range systemObjects {
			if o.kind != k.target {
				continue
			}
			resource := strings.Replace(o.resource, "Lb", "LB", 1)
			if k.name == KindPolicyMonitor {
				resource += "Profile"
			}
			path := s.pathOf(k, "/infra", o.name)
			doc := document{"resource_type": encode(resource)}
			if _, err := s.storeIntent(system, k, path, doc, nil, freshID(o.name)); err != nil {
				return fmt.Errorf("%s: %w", path, err)
			}
		}
	}
	s.realizeDue()
	return nil
}

// populateTier0 gives a release without logical routers its tier-0 gateway.
func (s *Sim) populateTier0() error {
	admin := s.As(DefaultUsername)
	if _, err := admin.PutIntent("/infra/tier-0s/tier-0", Object{"ha_mode": "ACTIVE_STANDBY"}); err != nil {
		return fmt.Errorf("the tier-0 gateway: %w", err)
	}
	_, err := admin.PutIntent("/infra/tier-0s/tier-0/locale-services/default", Object{"edge_cluster_path": edgeClusters + "/" + s.edgeClusterID})
	if err != nil {
		return fmt.Errorf("the locale services of the tier-0 gateway: %w", err)
	}
	s.tier0ID = "tier-0"
	return nil
}
