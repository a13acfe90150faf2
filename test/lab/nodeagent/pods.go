package nodeagent

import (
	"context"
	"crypto/tls"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/google/uuid"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"
	"k8s.io/utils/ptr"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/test/lab/echo"
)

// runningPod is a Pod whose ports are listened on.
type runningPod struct {
	uid     types.UID
	machine *machine
	ip      netip.Addr
	servers map[route]*echo.Server
	started metav1.Time
	// run differs each time that the Pod's containers are started.
	run string
}

// runPods looks after Pods until the Agent is closed.
func (a *Agent) runPods() {
	for {
		name, shutdown := a.podQueue.Get()
		if shutdown {
			return
		}
		err := a.syncPod(a.ctx, name)
		if err != nil && a.ctx.Err() == nil {
			klog.FromContext(a.ctx).Error(err, "Pod will be tried again", "pod", name)
			a.podQueue.AddRateLimited(name)
		} else {
			a.podQueue.Forget(name)
		}
		a.podQueue.Done(name)
	}
}

// syncPodsOf has all Pods of a node looked after.
func (a *Agent) syncPodsOf(node string) error {
	pods, err := a.pods.List(labels.Everything())
	if err != nil {
		return fmt.Errorf("node %s: %w", node, err)
	}
	for _, p := range pods {
		if p.Spec.NodeName == node {
			a.podQueue.Add(types.NamespacedName{Namespace: p.Namespace, Name: p.Name})
		}
	}
	return nil
}

// syncPod makes what runs under a name what the Pod of that name asks for.
func (a *Agent) syncPod(ctx context.Context, name types.NamespacedName) error {
	pod, err := a.pods.Pods(name.Namespace).Get(name.Name)
	if err != nil && !apierrors.IsNotFound(err) {
		return err
	}
	gone := err != nil || pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
	if up := a.podUp(name); up != nil && (gone || up.uid != pod.UID) {
		a.takeDown(name)
	}
	switch {
	case gone || pod.Spec.NodeName == "":
		return nil
	case !pod.DeletionTimestamp.IsZero():
		return a.terminate(ctx, name, pod)
	}
	up, err := a.bringUp(name, pod)
	if up == nil || err != nil {
		return err
	}
	return a.patchPodStatus(ctx, pod, podStatus(pod, up, a.clock.Now()))
}

// terminate ends a Pod at the end of its grace period; until then it serves on.
func (a *Agent) terminate(ctx context.Context, name types.NamespacedName, pod *corev1.Pod) error {
	a.mu.Lock()
	m, ours := a.machines[pod.Spec.NodeName]
	on := ours && m.on != nil
	up := a.podsUp[name]
	a.mu.Unlock()
	if !on {
		return nil
	}
	if left := pod.DeletionTimestamp.Sub(a.clock.Now()); up != nil && left > 0 {
		a.podQueue.AddAfter(name, left)
		return nil
	}
	err := a.client.CoreV1().Pods(pod.Namespace).Delete(ctx, pod.Name, metav1.DeleteOptions{
		GracePeriodSeconds: ptr.To[int64](0),
		Preconditions:      metav1.NewUIDPreconditions(string(pod.UID)),
	})
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		return fmt.Errorf("delete the Pod, which has ended: %w", err)
	}
	a.takeDown(name)
	return nil
}

func (a *Agent) podUp(name types.NamespacedName) *runningPod {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.podsUp[name]
}

// bringUp starts the Pod's ports, unless they run; nil: its machine is off, or no machine of this Agent's.
func (a *Agent) bringUp(name types.NamespacedName, pod *corev1.Pod) (*runningPod, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	m, ours := a.machines[pod.Spec.NodeName]
	if !ours || m.on == nil || a.ctx.Err() != nil {
		return nil, nil
	}
	if up := a.podsUp[name]; up != nil {
		return up, nil
	}
	ip, err := m.addresses.take()
	if err != nil {
		return nil, err
	}
	up := &runningPod{
		uid: pod.UID, machine: m, ip: ip, servers: map[route]*echo.Server{},
		started: metav1.NewTime(a.clock.Now()), run: uuid.NewString(),
	}
	who := echo.Identity{Pod: name.String(), Node: pod.Spec.NodeName}
	for _, port := range portsOf(pod) {
		at := route{port.Protocol, netip.AddrPortFrom(ip, uint16(port.ContainerPort))}
		server, err := a.listen(who, port)
		if err != nil {
			for _, s := range up.servers {
				s.Close()
			}
			m.addresses.release(ip)
			return nil, err
		}
		up.servers[at] = server
	}
	for at, server := range up.servers {
		a.routes.add(at, server.Addr())
	}
	a.podsUp[name] = up
	return up, nil
}

func (a *Agent) listen(who echo.Identity, port corev1.ContainerPort) (*echo.Server, error) {
	if port.Protocol == corev1.ProtocolUDP {
		return echo.UDP(who)
	}
	var certificate *tls.Certificate
	if speaksTLS(port) {
		var err error
		if certificate, err = a.certificate(); err != nil {
			return nil, err
		}
	}
	return echo.HTTP(who, certificate)
}

// takeDown ends what runs under a name.
func (a *Agent) takeDown(name types.NamespacedName) {
	a.mu.Lock()
	up := a.podsUp[name]
	delete(a.podsUp, name)
	a.mu.Unlock()
	if up != nil {
		a.kill(up)
	}
}

// kill cuts all connections of a Pod that is in the Agent's list no more.
func (a *Agent) kill(up *runningPod) {
	for at, server := range up.servers {
		a.routes.drop(at)
		server.Close()
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	up.machine.addresses.release(up.ip)
}

// portsOf lists what a Pod listens on, each port once: the ports that its containers declare, for TCP and UDP. A Pod
// that declares none listens on 80, as most images that declare none do.
func portsOf(pod *corev1.Pod) []corev1.ContainerPort {
	type key struct {
		protocol corev1.Protocol
		number   int32
	}
	found := map[key]corev1.ContainerPort{}
	for _, c := range pod.Spec.Containers {
		for _, p := range c.Ports {
			if p.Protocol == "" {
				p.Protocol = corev1.ProtocolTCP
			}
			k := key{p.Protocol, p.ContainerPort}
			if _, twice := found[k]; !twice && (p.Protocol == corev1.ProtocolTCP || p.Protocol == corev1.ProtocolUDP) {
				found[k] = p
			}
		}
	}
	if len(found) == 0 {
		return []corev1.ContainerPort{{ContainerPort: 80, Protocol: corev1.ProtocolTCP}}
	}
	return slices.Collect(maps.Values(found))
}

// speaksTLS says whether a port is for HTTPS, by its name or number.
func speaksTLS(p corev1.ContainerPort) bool {
	return strings.HasPrefix(p.Name, "https") || p.Name == "" && (p.ContainerPort == 443 || p.ContainerPort == 8443)
}
