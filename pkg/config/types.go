package config

import (
	"net/netip"
	"time"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/names"
)

// What the head of every cloud config file says.
const (
	// APIVersion is the schema version that this package reads.
	APIVersion = names.ConfigAPIVersion
	// Kind is the kind of object that this package reads.
	Kind = names.ConfigKind
)

// The types below are the schema. Their tags are read by the loader and by the
// generator of docs/reference/configuration.md, their comments by the latter:
//
//	yaml:"name"        the key
//	required:"true"    the key must be there and must not be empty
//	default:"value"    the value when the key is absent or null, in YAML
//	min:"1" max:"9"    the range of a number or a duration, inclusive
//
// Lists and sections without a default are empty when absent. Defaults that
// depend on other keys are in defaults.go, checks that need more than a range
// in validate.go.

// CloudConfig is the configuration of one nsxt-cloud-controller-manager. A
// file holds exactly one.
type CloudConfig struct {
	// APIVersion is the version of the schema: nsxt.io/v1alpha1.
	APIVersion string `yaml:"apiVersion" required:"true"`
	// Kind is the kind of object: CloudConfig.
	Kind string `yaml:"kind" required:"true"`
	// Cluster tells this Kubernetes cluster from others that use the same NSX.
	Cluster Cluster `yaml:"cluster" required:"true"`
	// NSX says how to reach the NSX managers and how hard to use them.
	NSX NSX `yaml:"nsx" required:"true"`
	// VCenters are the vCenters that run the cluster's nodes. With none, nodes
	// get no provider ids, addresses, zones or life cycle from this controller,
	// and only load balancing works.
	VCenters []VCenter `yaml:"vcenters"`
	// Nodes says which addresses of a virtual machine become addresses of its
	// Node.
	Nodes Nodes `yaml:"nodes"`
	// LoadBalancer says what a Service of type LoadBalancer turns into on NSX.
	LoadBalancer LoadBalancer `yaml:"loadBalancer" required:"true"`
}

// Cluster is the identity of the Kubernetes cluster in NSX.
type Cluster struct {
	// Name is the cluster's name, for people: every object made in NSX carries
	// it in the tag `nsxt.io/cluster`. At most 63 letters, digits, `-`, `_`, `.`.
	Name string `yaml:"name" required:"true"`
	// ID is what ownership of NSX objects goes by, in the tag
	// `nsxt.io/cluster-uid`. By default it is the UID of the namespace
	// kube-system. Set it for a cluster restored under a new UID, to the old
	// one, and for a cloned cluster, to keep the clones apart. Two clusters
	// with the same ID delete each other's load balancers.
	ID string `yaml:"id"`
}

// NSX is the connection to the NSX managers.
type NSX struct {
	// Managers are the nodes of one NSX manager cluster, or its virtual
	// address: each a host, host:port or https URL. When one fails, the next
	// is used.
	Managers []string `yaml:"managers" required:"true"`
	// API is the NSX API that load balancers are made with.
	API API `yaml:"api" default:"Manager"`
	// Credentials is where the identity towards NSX comes from.
	Credentials Credentials `yaml:"credentials" required:"true"`
	// Authentication is how user name and password are presented. `Session` by
	// default; it must not be set with a client certificate, which
	// authenticates by itself.
	Authentication Authentication `yaml:"authentication,omitempty"`
	// CAFile is the absolute path of a PEM bundle of certificate authorities
	// to verify the managers with, instead of the system's. It is read again
	// when a certificate is not trusted, so that a renewed authority is taken up
	// without a restart.
	CAFile string `yaml:"caFile"`
	// InsecureSkipVerify turns off verification of the managers' certificates:
	// whoever answers gets the credentials. For tests only.
	InsecureSkipVerify bool `yaml:"insecureSkipVerify" default:"false"`
	// RateLimit keeps the controller below NSX's own limits.
	RateLimit RateLimit `yaml:"rateLimit"`
	// RequestTimeout bounds one HTTP request, from sending it to the last byte
	// of the answer.
	RequestTimeout time.Duration `yaml:"requestTimeout" default:"30s" min:"1s" max:"10m"`
}

// API names one of NSX's APIs.
type API string

const (
	// APIManager is the Manager API, /api/v1, of NSX-T 2.5 to 4.x.
	APIManager API = "Manager"
)

// Authentication is a way to present user name and password to NSX.
type Authentication string

const (
	// AuthenticationSession logs in once per manager and sends the session's
	// cookie and token from then on.
	AuthenticationSession Authentication = "Session"
	// AuthenticationBasic sends user name and password with every request.
	AuthenticationBasic Authentication = "Basic"
)

// RateLimit bounds the requests of this controller to NSX. By default NSX
// refuses a user's requests above 100 per second, or 40 at once, on one
// manager; the defaults leave room for other users of the same account.
type RateLimit struct {
	// RequestsPerSecond is how many requests are sent per second in the long
	// run.
	RequestsPerSecond int `yaml:"requestsPerSecond" default:"60" min:"1" max:"10000"`
	// Burst is how many requests may go out at once after a quiet time. By
	// default half of `requestsPerSecond` (at least 1): NSX counts by the
	// second, and a burst and a second's worth can fall into the same one.
	Burst int `yaml:"burst" min:"1" max:"10000"`
	// MaxConcurrent is how many requests may wait for their answer at once.
	MaxConcurrent int `yaml:"maxConcurrent" default:"20" min:"1" max:"1000"`
	// AuditRequestsPerSecond is what the audit may send per second, on top of
	// `requestsPerSecond`, so that it never delays a Service; two of its
	// requests may wait for their answer at once. By default a tenth of
	// `requestsPerSecond` (at least 1).
	AuditRequestsPerSecond int `yaml:"auditRequestsPerSecond" min:"1" max:"10000"`
}

// Credentials is where an identity comes from: exactly one of its sources. The
// config file never holds a secret itself.
type Credentials struct {
	// File is the absolute path of a YAML file with the keys `username` and
	// `password`.
	File string `yaml:"file,omitempty"`
	// Env takes user name and password from environment variables.
	Env *EnvCredentials `yaml:"env,omitempty"`
	// Secret takes them from a Kubernetes Secret with the keys `username` and
	// `password`.
	Secret *SecretReference `yaml:"secret,omitempty"`
	// ClientCertificate is a certificate that NSX knows as a principal
	// identity. Not for vCenters.
	ClientCertificate *ClientCertificate `yaml:"clientCertificate,omitempty"`
}

// EnvCredentials names the environment variables that hold user name and
// password: the variables' names, not the values.
type EnvCredentials struct {
	// Username is the name of the variable that holds the user name.
	Username string `yaml:"username" required:"true"`
	// Password is the name of the variable that holds the password.
	Password string `yaml:"password" required:"true"`
}

// SecretReference names a Kubernetes Secret.
type SecretReference struct {
	// Namespace is the Secret's namespace.
	Namespace string `yaml:"namespace" default:"kube-system"`
	// Name is the Secret's name.
	Name string `yaml:"name" required:"true"`
}

// ClientCertificate names the files of a certificate and its key.
type ClientCertificate struct {
	// CertFile is the absolute path of the PEM certificate (chain).
	CertFile string `yaml:"certFile" required:"true"`
	// KeyFile is the absolute path of the PEM private key.
	KeyFile string `yaml:"keyFile" required:"true"`
}

// VCenter is the connection to one vCenter.
type VCenter struct {
	// Server is the vCenter: a host, host:port or https URL.
	Server string `yaml:"server" required:"true"`
	// Credentials is where user name and password come from.
	Credentials Credentials `yaml:"credentials" required:"true"`
	// CAFile is the absolute path of a PEM bundle of certificate authorities
	// to verify the vCenter with, instead of the system's.
	CAFile string `yaml:"caFile"`
	// InsecureSkipVerify turns off verification of the vCenter's certificate:
	// whoever answers gets the credentials. For tests only.
	InsecureSkipVerify bool `yaml:"insecureSkipVerify" default:"false"`
	// Thumbprint is the SHA-1 or SHA-256 fingerprint of the vCenter's
	// certificate, as hexadecimal bytes joined by colons, to trust instead of
	// certificate authorities.
	Thumbprint string `yaml:"thumbprint"`
	// Datacenters are the names or inventory paths of the datacenters to look
	// for nodes in. With none, all of the vCenter's.
	Datacenters []string `yaml:"datacenters"`
	// ZoneTagCategory is the category of the vSphere tags that name zones. A
	// node's zone is the tag of this category on its virtual machine or the
	// nearest object above it.
	ZoneTagCategory string `yaml:"zoneTagCategory" default:"k8s-zone"`
	// RegionTagCategory is the same for regions.
	RegionTagCategory string `yaml:"regionTagCategory" default:"k8s-region"`
}

// Nodes says which addresses of a virtual machine become addresses of its
// Node. With neither list, all of them are internal addresses.
type Nodes struct {
	// InternalNetworks are the CIDRs whose addresses become InternalIP. NSX
	// forwards traffic to these.
	InternalNetworks []netip.Prefix `yaml:"internalNetworks"`
	// ExternalNetworks are the CIDRs whose addresses become ExternalIP.
	ExternalNetworks []netip.Prefix `yaml:"externalNetworks"`
	// AllowLoopbackAddresses lets nodes have addresses in 127.0.0.0/8 and ::1.
	// For simulated nodes only: a real node would be unreachable.
	AllowLoopbackAddresses bool `yaml:"allowLoopbackAddresses" default:"false"`
}

// LoadBalancer says what a Service of type LoadBalancer turns into on NSX.
type LoadBalancer struct {
	// IPPools are the NSX IP pools that floating IPs may come from.
	IPPools []IPPool `yaml:"ipPools"`
	// DefaultClass is the name of the class for Services that name none.
	DefaultClass string `yaml:"defaultClass" default:"default"`
	// Classes are the kinds of load balancer that Services can choose from.
	Classes []Class `yaml:"classes" required:"true"`
	// NotReadyGrace is how long a node may be NotReady before it gets no new
	// connections. Shorter outages are left to the health checks.
	NotReadyGrace time.Duration `yaml:"notReadyGrace" default:"60s" min:"0s" max:"1h"`
	// DrainTime is how long a leaving node stays in the node group that
	// Services with `externalTrafficPolicy: Local` use, with its health check
	// failing, so that open connections can end.
	DrainTime time.Duration `yaml:"drainTime" default:"60s" min:"0s" max:"1h"`
	// AuditInterval is how often NSX is compared with what should be there, to
	// repair what differs and to find orphans. Each round is jittered.
	AuditInterval time.Duration `yaml:"auditInterval" default:"10m" min:"1m" max:"24h"`
	// AuditMode is what the audit does about what it finds.
	AuditMode AuditMode `yaml:"auditMode" default:"Repair"`
}

// AuditMode is what the audit does.
type AuditMode string

const (
	// AuditModeRepair puts right what differs, and removes orphans.
	AuditModeRepair AuditMode = "Repair"
	// AuditModeReport says what Repair would do, and writes nothing to NSX.
	AuditModeReport AuditMode = "Report"
	// AuditModeOff audits on demand alone.
	AuditModeOff AuditMode = "Off"
)

// IPPool is an NSX IP pool that floating IPs come from.
type IPPool struct {
	// Name is how classes and Services refer to the pool. At most 63 letters,
	// digits, `-`, `_`, `.`.
	Name string `yaml:"name" required:"true"`
	// ID is the NSX id or display name of the pool. By default the same as
	// `name`.
	ID string `yaml:"id"`
	// Exclusive promises that nobody allocates from this pool but controllers
	// of this kind. Allocations that no load balancer accounts for are then
	// released; otherwise they are only counted, in the metric
	// nsxt_ip_pool_unrecorded_addresses.
	Exclusive bool `yaml:"exclusive" default:"false"`
}

// Class is a kind of load balancer that a Service can choose. It needs a place
// for virtual servers: either `loadBalancerServices` or `tier1Gateways`.
type Class struct {
	// Name is how Services refer to the class. At most 63 letters, digits,
	// `-`, `_`, `.`.
	Name string `yaml:"name" required:"true"`
	// IPPools are the names of the pools to take floating IPs from, the
	// preferred one first. With none, Services of the class stay pending, and
	// an event says why.
	IPPools []string `yaml:"ipPools"`
	// LoadBalancerServices are the NSX ids or display names of existing load
	// balancer services to put virtual servers in. They are never deleted.
	LoadBalancerServices []string `yaml:"loadBalancerServices"`
	// Tier1Gateways are the gateways on which load-balancer services are made
	// as needed, and deleted when empty.
	Tier1Gateways []Tier1Gateway `yaml:"tier1Gateways"`
	// ApplicationProfiles are the NSX application profiles of virtual servers.
	ApplicationProfiles ApplicationProfiles `yaml:"applicationProfiles"`
	// HealthCheck is what the nodes are asked for Services with
	// `externalTrafficPolicy: Cluster`. For Local it is always the Service's
	// healthCheckNodePort.
	HealthCheck HealthCheck `yaml:"healthCheck" default:"kube-proxy"`
	// Monitor is how often nodes are asked, and how answers are judged.
	Monitor Monitor `yaml:"monitor"`
	// MaxNodes is the most nodes that a Service with
	// `externalTrafficPolicy: Local` is balanced over. NSX sets so many pool
	// members aside for each such Service, of those that the load balancer
	// service's size allows, and gives further nodes no traffic.
	MaxNodes int `yaml:"maxNodes" default:"128" min:"1" max:"2147483647"`
	// PreserveClientIP is whether pods see the address of the client. If they
	// do, answers must go back through the gateway that the load balancer is
	// on.
	PreserveClientIP PreserveClientIP `yaml:"preserveClientIP" default:"Auto"`
	// Algorithm is how connections are spread over the nodes.
	Algorithm Algorithm `yaml:"algorithm" default:"ROUND_ROBIN"`
}

// Tier1Gateway is a gateway on which load-balancer services are made.
type Tier1Gateway struct {
	// ID is the NSX id or display name of the tier-1 gateway. It needs an edge
	// cluster, and must advertise load-balancer VIPs to be reached.
	ID string `yaml:"id" required:"true"`
	// Size is the size of the load-balancer service made on it.
	Size Size `yaml:"size" default:"SMALL"`
}

// Size is the size of an NSX load-balancer service, which sets how many
// virtual servers, pools and members it can hold.
type Size string

// The sizes of load-balancer services.
const (
	SizeSmall  Size = "SMALL"
	SizeMedium Size = "MEDIUM"
	SizeLarge  Size = "LARGE"
	// SizeXLarge needs NSX-T 3.0 or later.
	SizeXLarge Size = "XLARGE"
)

// ApplicationProfiles names the NSX application profile by protocol.
type ApplicationProfiles struct {
	// TCP is the id or display name of a fast TCP profile.
	TCP string `yaml:"tcp" default:"default-tcp-lb-app-profile"`
	// UDP is the id or display name of a fast UDP profile.
	UDP string `yaml:"udp" default:"default-udp-lb-app-profile"`
}

// HealthCheck is an HTTP GET that a healthy node answers with 200. In the file
// it is one of
//
//   - `kube-proxy`: short for `{port: 10256, path: /healthz}`, where kube-proxy
//     says whether the node is fit for load balancer traffic
//   - `none`: nodes are not asked
//   - a section with the keys below, for clusters without kube-proxy
type HealthCheck struct {
	// Port is the port on each node.
	Port int `yaml:"port" required:"true" min:"1" max:"65535"`
	// Path is the path to ask for.
	Path string `yaml:"path" default:"/healthz"`
}

// Monitor sets the pace of health checks. A node that stops answering is out
// after about fallCount times the greater of interval and timeout.
type Monitor struct {
	// Interval is the time between two checks of a node, in whole seconds.
	Interval time.Duration `yaml:"interval" default:"5s" min:"1s" max:"1h"`
	// Timeout is how long to wait for an answer, in whole seconds. By default
	// the same as `interval`; longer than that only delays the verdict.
	Timeout time.Duration `yaml:"timeout" min:"1s" max:"1h"`
	// FallCount is how many checks in a row must fail to take a node out.
	FallCount int `yaml:"fallCount" default:"3" min:"1" max:"2147483647"`
	// RiseCount is how many checks in a row must succeed to take it back.
	RiseCount int `yaml:"riseCount" default:"3" min:"1" max:"2147483647"`
}

// PreserveClientIP is when pods see the client's address.
type PreserveClientIP string

const (
	// PreserveClientIPAuto keeps the client's address for Services with
	// `externalTrafficPolicy: Local`, and for no others.
	PreserveClientIPAuto PreserveClientIP = "Auto"
	// PreserveClientIPAlways keeps it up to the node for all Services. With
	// `externalTrafficPolicy: Cluster` the node itself may still replace it.
	PreserveClientIPAlways PreserveClientIP = "Always"
	// PreserveClientIPNever replaces it by an address of the load balancer
	// (SNAT automap).
	PreserveClientIPNever PreserveClientIP = "Never"
)

// Algorithm is an NSX load balancing algorithm. All nodes have the same
// weight.
type Algorithm string

const (
	// AlgorithmRoundRobin takes the nodes in turn.
	AlgorithmRoundRobin Algorithm = "ROUND_ROBIN"
	// AlgorithmLeastConnection takes the node with the fewest connections.
	AlgorithmLeastConnection Algorithm = "LEAST_CONNECTION"
	// AlgorithmIPHash takes the node by the client's address.
	AlgorithmIPHash Algorithm = "IP_HASH"
)
