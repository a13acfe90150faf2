package world

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/names"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsx"
)

// kube is what a cluster's API server keeps: Services of one namespace, and Nodes.
type kube struct {
	c *Cluster

	mu       sync.Mutex
	services map[string]*corev1.Service
	nodes    map[string]*corev1.Node
	// made counts Services, for their UIDs; ports the node ports given out.
	made  int
	ports int32
	// mayMove are the UIDs of the Services whose user has changed something since that decides about the address.
	mayMove map[types.UID]bool
	// sources are the clients that each Service has let in since the world was last at rest.
	sources map[types.UID][]string
	// many are the UIDs of the Services that have had more ports than a virtual server takes: a port stays where it is.
	many map[types.UID]bool
	// blind: the controller was shown no Nodes at last.
	blind bool
	// unlisted are the names of the Services that the controller's list does not have yet.
	unlisted map[string]bool
}

func newKube(c *Cluster) *kube {
	return &kube{
		c: c, services: map[string]*corev1.Service{}, nodes: map[string]*corev1.Node{}, ports: 30000, mayMove: map[types.UID]bool{},
		sources: map[types.UID][]string{}, many: map[types.UID]bool{}, unlisted: map[string]bool{},
	}
}

// Apply creates a Service, or makes one that exists what is given: its labels, annotations and spec. Node ports that it has
// not got are given to it, as the API server does.
func (c *Cluster) Apply(svc *corev1.Service) {
	c.say("apply Service %s", Describe(svc))
	k := c.kube
	k.mu.Lock()
	have := k.services[svc.Name]
	fresh := have == nil
	if fresh {
		k.made++
		have = &corev1.Service{}
		have.Namespace, have.Name, have.UID = "default", svc.Name, types.UID(fmt.Sprintf("%s-%s-%d", c.Name, svc.Name, k.made))
		k.services[svc.Name] = have
	}
	before := have.DeepCopy()
	have.Annotations = maps.Clone(svc.Annotations)
	svc.Spec.DeepCopyInto(&have.Spec)
	k.complete(before, have)
	k.sources[have.UID] = append(k.sources[have.UID], sourcesOf(have))
	if len(have.Spec.Ports) > nsx.MaxPorts {
		k.many[have.UID] = true
	}
	if !fresh && asks(before) != asks(have) {
		k.mayMove[have.UID] = true
	}
	k.mu.Unlock()
	k.tell(svc.Name)
}

// Edit changes a Service that exists; nothing happens when it does not.
func (c *Cluster) Edit(name string, change func(*corev1.Service)) {
	if svc := c.Service(name); svc != nil {
		change(svc)
		c.Apply(svc)
	}
}

// Delete deletes a Service: it is gone once it has no finalizers any more.
func (c *Cluster) Delete(name string) {
	c.say("delete Service %s", name)
	k := c.kube
	k.mu.Lock()
	if svc := k.services[name]; svc != nil && svc.DeletionTimestamp == nil {
		now := metav1.Now()
		svc.DeletionTimestamp = &now
		k.collect(svc)
	}
	k.mu.Unlock()
	k.tell(name)
}

// Service is a copy of a Service as the API server has it; nil when there is none.
func (c *Cluster) Service(name string) *corev1.Service { return c.kube.get(name) }

// Services are copies of all of them, in the order of their names.
func (c *Cluster) Services() []*corev1.Service { return c.kube.list() }

// Describe says for people what a Service asks for.
func Describe(svc *corev1.Service) string {
	s := fmt.Sprintf("%s: %s %s", svc.Name, svc.Spec.Type, svc.Spec.ExternalTrafficPolicy)
	for _, p := range svc.Spec.Ports {
		s += fmt.Sprintf(" %d/%s", p.Port, p.Protocol)
	}
	if svc.Spec.SessionAffinity == corev1.ServiceAffinityClientIP {
		s += " sticky"
	}
	if class := svc.Annotations[names.AnnotationClass]; class != "" {
		s += " class " + class
	}
	if svc.Spec.LoadBalancerIP != "" {
		s += " asks for " + svc.Spec.LoadBalancerIP
	}
	if from := sourcesOf(svc); from != everybody {
		s += " from " + from
	}
	return s
}

// asks is what of a Service decides about its address: while it is the same, so must be the EXTERNAL-IP.
func asks(svc *corev1.Service) string {
	return fmt.Sprint(svc.Spec.Type, svc.Spec.LoadBalancerIP, svc.Spec.IPFamilies, svc.Annotations[names.AnnotationIPAddresses])
}

// complete does what the API server does to a Service that is written.
func (k *kube) complete(before, svc *corev1.Service) {
	svc.Spec.IPFamilies = []corev1.IPFamily{corev1.IPv4Protocol}
	if svc.Spec.Type != corev1.ServiceTypeLoadBalancer {
		for i := range svc.Spec.Ports {
			svc.Spec.Ports[i].NodePort = 0
		}
		svc.Spec.HealthCheckNodePort = 0
		return
	}
	for i := range svc.Spec.Ports {
		p := &svc.Spec.Ports[i]
		for _, had := range before.Spec.Ports {
			if p.NodePort == 0 && had.Port == p.Port && had.Protocol == p.Protocol {
				p.NodePort = had.NodePort
			}
		}
		if p.NodePort == 0 {
			k.ports++
			p.NodePort = k.ports
		}
	}
	switch local := svc.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal; {
	case !local:
		svc.Spec.HealthCheckNodePort = 0
	case before.Spec.HealthCheckNodePort != 0:
		svc.Spec.HealthCheckNodePort = before.Spec.HealthCheckNodePort
	default:
		k.ports++
		svc.Spec.HealthCheckNodePort = k.ports
	}
}

// tell lets the framework see that a Service has changed.
func (k *kube) tell(name string) {
	if p := k.c.process; p != nil && !p.dead() {
		p.framework.changed(name)
	}
}

func (k *kube) get(name string) *corev1.Service {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.services[name].DeepCopy()
}

func (k *kube) list() []*corev1.Service {
	k.mu.Lock()
	defer k.mu.Unlock()
	var out []*corev1.Service
	for _, name := range slices.Sorted(maps.Keys(k.services)) {
		out = append(out, k.services[name].DeepCopy())
	}
	return out
}

// Unlist lets a Service be missing in the list that the controller's audits see, as in a cache that lags behind; List ends
// that.
func (c *Cluster) Unlist(name string) {
	c.say("Service %s is not in the list", name)
	c.kube.mu.Lock()
	defer c.kube.mu.Unlock()
	c.kube.unlisted[name] = true
}

// List lets the list have all Services.
func (c *Cluster) List() {
	c.kube.mu.Lock()
	defer c.kube.mu.Unlock()
	clear(c.kube.unlisted)
}

// listed are the Services that the controller's list has.
func (k *kube) listed() []*corev1.Service {
	all := k.list()
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.DeleteFunc(all, func(svc *corev1.Service) bool { return k.unlisted[svc.Name] })
}

// collect removes a Service that is deleted and that nobody wants to finalize.
func (k *kube) collect(svc *corev1.Service) {
	if svc.DeletionTimestamp != nil && len(svc.Finalizers) == 0 {
		delete(k.services, svc.Name)
	}
}

// same is the Service that the framework has worked on, if it still exists and the framework is still alive.
func (k *kube) same(p *process, svc *corev1.Service) *corev1.Service {
	have := k.services[svc.Name]
	if p.dead() || have == nil || have.UID != svc.UID {
		return nil
	}
	return have
}

func (k *kube) addFinalizer(p *process, svc *corev1.Service) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	have := k.same(p, svc)
	if have == nil || have.DeletionTimestamp != nil {
		return false
	}
	if !slices.Contains(have.Finalizers, finalizer) {
		have.Finalizers = append(have.Finalizers, finalizer)
	}
	return true
}

// patchStatus takes over a Service's status, and holds it against what was there.
func (k *kube) patchStatus(p *process, svc *corev1.Service, status *corev1.LoadBalancerStatus) {
	k.mu.Lock()
	defer k.mu.Unlock()
	have := k.same(p, svc)
	if have == nil {
		return
	}
	before, after := externalIP(have), ""
	if len(status.Ingress) > 0 {
		after = status.Ingress[0].IP
	}
	if before != after {
		k.c.say("Service %s has EXTERNAL-IP %q", svc.Name, after)
	}
	if before != "" && before != after && wantsLoadBalancer(have) && !k.mayMove[have.UID] {
		k.c.w.Violate("EXTERNAL-IP of %s/%s changed from %s to %q, and its user did not ask for that", k.c.Name, svc.Name, before, after)
	}
	status.DeepCopyInto(&have.Status.LoadBalancer)
}

// cleanedUp takes the finalizer off a Service whose load balancer is gone.
func (k *kube) cleanedUp(p *process, svc *corev1.Service) {
	k.mu.Lock()
	defer k.mu.Unlock()
	have := k.same(p, svc)
	if have == nil {
		return
	}
	k.c.say("Service %s has no load balancer any more", svc.Name)
	have.Finalizers = slices.DeleteFunc(have.Finalizers, func(f string) bool { return f == finalizer })
	have.Status.LoadBalancer = corev1.LoadBalancerStatus{}
	k.collect(have)
}

// moving tells whether a Service's user has asked for another address since the world was last at rest, or given it up.
func (k *kube) moving(svc *corev1.Service) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.mayMove[svc.UID]
}

func (k *kube) hadMany(svc *corev1.Service) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.many[svc.UID]
}

// mayLose: in an IP pool that is not exclusive, a process that has not seen whose address it was cannot know.
func (k *kube) mayLose(addr string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, svc := range k.services {
		if externalIP(svc) == addr {
			k.mayMove[svc.UID] = true
		}
	}
}

// mayLet tells whether a Service has let in these clients at some time since the world was last at rest.
func (k *kube) mayLet(svc *corev1.Service, clients string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Contains(k.sources[svc.UID], clients)
}

// settle ends what users may have asked for and have got: the world is at rest.
func (k *kube) settle() {
	k.mu.Lock()
	defer k.mu.Unlock()
	clear(k.sources)
	for _, svc := range k.services {
		if asked := svc.Spec.LoadBalancerIP; asked == "" || asked == externalIP(svc) {
			delete(k.mayMove, svc.UID) // another one still waits for the address
		}
		k.sources[svc.UID] = []string{sourcesOf(svc)}
	}
}

// externalIP is the address that a Service shows; empty for none.
func externalIP(svc *corev1.Service) string {
	if len(svc.Status.LoadBalancer.Ingress) == 0 {
		return ""
	}
	return svc.Status.LoadBalancer.Ingress[0].IP
}

// SetNode creates a Node or changes the one of that name.
func (c *Cluster) SetNode(name string, change func(*corev1.Node)) {
	k := c.kube
	k.mu.Lock()
	n := k.nodes[name]
	if n == nil {
		n = &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(c.Name + "-" + name + "-" + fmt.Sprint(time.Now().UnixNano())), CreationTimestamp: metav1.Now()}}
	}
	n = n.DeepCopy() // the controller has the one before
	change(n)
	k.nodes[name] = n
	k.mu.Unlock()
	c.say("Node %s: ready %t %v", name, readySince(n) != nil, n.Spec.Taints)
	k.tellNodes()
}

// DeleteNode deletes a Node.
func (c *Cluster) DeleteNode(name string) {
	c.say("delete Node %s", name)
	c.kube.mu.Lock()
	delete(c.kube.nodes, name)
	c.kube.mu.Unlock()
	c.kube.tellNodes()
}

// LoseNodes shows the controller an empty list of Nodes, as a cache does that was filled from an API server in trouble. The
// next change of a Node, or SeeNodes, shows it the whole list again.
func (c *Cluster) LoseNodes() {
	c.say("the list of Nodes is empty")
	c.kube.mu.Lock()
	c.kube.blind = true
	c.kube.mu.Unlock()
	if p := c.process; p != nil && !p.dead() {
		p.engine.NodesChanged(nil)
	}
}

// SeeNodes shows the controller the Nodes as they are.
func (c *Cluster) SeeNodes() { c.kube.tellNodes() }

// Nodes are all of them, in the order of their names.
func (c *Cluster) Nodes() []*corev1.Node { return c.kube.listNodes() }

func (k *kube) tellNodes() {
	k.mu.Lock()
	k.blind = false
	k.mu.Unlock()
	if p := k.c.process; p != nil && !p.dead() {
		p.engine.NodesChanged(k.listNodes())
	}
}

func (k *kube) listNodes() []*corev1.Node {
	k.mu.Lock()
	defer k.mu.Unlock()
	var out []*corev1.Node
	for _, name := range slices.Sorted(maps.Keys(k.nodes)) {
		out = append(out, k.nodes[name])
	}
	return out
}

// seen tells whether the controller was shown the Nodes as they are.
func (k *kube) seen() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return !k.blind
}

// readySince is since when a Node is Ready and meant to get traffic; nil when it is not.
func readySince(n *corev1.Node) *time.Time {
	if n.DeletionTimestamp != nil || n.Labels[corev1.LabelNodeExcludeBalancers] != "" || len(n.Spec.Taints) > 0 {
		return nil
	}
	for _, c := range n.Status.Conditions {
		if c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue {
			return &c.LastTransitionTime.Time
		}
	}
	return nil
}
