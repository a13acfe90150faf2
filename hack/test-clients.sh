#!/usr/bin/env bash
# Runs NSX clients that others wrote, as they are published, against nsxsim: cloud-provider-vsphere's load balancers
# (Policy API), and VMware's Terraform provider with its own acceptance tests (Manager API). With an argument, a regular
# expression of names, runs those acceptance tests instead of all that are about what nsxsim simulates.
set -euo pipefail
cd "$(dirname "$0")/.."

# Left out: networks of logical switches (they pass, but wait 2 s each), and kinds that nsxsim does not have: firewall
# sections, subnets of IP blocks, and the address pools of DHCP servers.
tests=${1:-'Nsxt(Lb|Ip(Pool|Set)|NSGroup|NsGroup|IPPool|EdgeCluster|LogicalTier|LogicalRouterLink|NatRule|StaticRoute_onT0|VM(Port)?Tags|NS?[sS]ervice|.*NsService|.*SwitchingProfile|MacPool|DhcpRelay|DhcpServerProfile|LogicalDhcpServer|I[pP]Block_|TransportZone)'}

work=$(mktemp -d)
sim=
trap '[[ -z $sim ]] || kill "$sim" 2>/dev/null || true; wait; rm -rf "$work"' EXIT

echo "cloud-provider-vsphere"
# With a go.mod of its own, as that in the tree need not know what the simulator has come to depend on since.
cp test/clients/vsphere/go.mod "$work/vsphere.mod"
cp test/clients/vsphere/go.sum "$work/vsphere.sum"
(cd test/clients/vsphere && go test -count=1 -mod=mod -modfile="$work/vsphere.mod" ./...)

echo "terraform-provider-nsxt"
cat >"$work/inventory.yaml" <<'EOF'
objects:
- kind: IpPool
  display_name: pool
  subnets: [{cidr: 192.168.100.0/24, allocation_ranges: [{start: 192.168.100.10, end: 192.168.100.40}]}]
- {kind: LogicalSwitch, display_name: net, transport_zone_id: nsx-overlay-transportzone, admin_state: UP}
- {kind: LogicalPort, display_name: port, logical_switch_id: net, admin_state: UP, attachment: {id: vif, attachment_type: VIF}}
- {kind: VirtualMachine, id: vm, display_name: vm, lport_attachment_id: vif}
EOF
bin/nsxsim --inventory "$work/inventory.yaml" >"$work/ready" &
sim=$!
until grep -qs ready "$work/ready"; do
	kill -0 "$sim" || exit 1
	sleep 0.1
done
url=$(sed -n 's/.*url=\([^ ]*\).*/\1/p' "$work/ready")
cd test/clients/terraform
export TF_ACC=1 NSXT_MANAGER_HOST=${url#https://} NSXT_USERNAME=admin NSXT_PASSWORD='VMware1!VMware1!' NSXT_ALLOW_UNVERIFIED_SSL=true
export NSXT_TEST_TIER0_ROUTER=tier-0 NSXT_TEST_EDGE_CLUSTER=edge-cluster NSXT_TEST_IP_POOL=pool
export NSXT_TEST_VM_ID=vm NSXT_TEST_VM_ON_OPAQUE_SWITCH_ID=vm
export NSXT_TEST_OVERLAY_TRANSPORT_ZONE=nsx-overlay-transportzone NSXT_TEST_VLAN_TRANSPORT_ZONE=nsx-vlan-transportzone
go test -count=1 -v -run "$tests" github.com/terraform-providers/terraform-provider-nsxt/nsxt >"$work/out" || {
	cat "$work/out"
	exit 1
}
passed=$(grep -c '^--- PASS' "$work/out" || true)
echo "$passed acceptance tests passed, $(grep -c '^--- SKIP' "$work/out" || true) skipped"
[[ $passed -gt 0 ]]
