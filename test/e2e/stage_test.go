//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/test/e2e/cluster"
)

// Bounds on things that take no longer unless something is wrong, on a busy machine.
const (
	addressWithin = time.Minute     // a Service gets or loses its load balancer
	podWithin     = 3 * time.Minute // pods start or end
	poll          = 50 * time.Millisecond
)

// namespacePrefix begins the names of the namespaces of our own tests.
const namespacePrefix = "own-"

// stage is where a test plays: a namespace of the cluster.
type stage struct {
	*testing.T
	*world
	ctx       context.Context
	namespace string
	began     time.Time
	excused   func(line string) bool // errors in the controller's log that the test itself brings about
}

// newStage makes a namespace, which goes at the end of the test. Then the controller must have logged no error since.
func newStage(t *testing.T) *stage {
	t.Helper()
	w := inWorld(t)
	s := &stage{T: t, world: w, ctx: w.context(t), began: time.Now(), excused: func(string) bool { return false }}
	ns, err := w.Client.CoreV1().Namespaces().Create(s.ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: namespacePrefix}}, metav1.CreateOptions{})
	s.must(err)
	s.namespace = ns.Name
	t.Cleanup(func() {
		s.ctx = context.WithoutCancel(s.ctx)
		services, pods := w.Client.CoreV1().Services(s.namespace), w.Client.CoreV1().Pods(s.namespace)
		s.must(w.Client.AppsV1().Deployments(s.namespace).DeleteCollection(s.ctx, metav1.DeleteOptions{}, metav1.ListOptions{}))
		now := int64(1) // the pods would take their time
		s.must(pods.DeleteCollection(s.ctx, metav1.DeleteOptions{GracePeriodSeconds: &now}, metav1.ListOptions{}))
		all, err := services.List(s.ctx, metav1.ListOptions{})
		s.must(err)
		for _, svc := range all.Items {
			if err := services.Delete(s.ctx, svc.Name, metav1.DeleteOptions{}); !apierrors.IsNotFound(err) {
				s.must(err)
			}
		}
		s.eventually("Services and pods are gone", podWithin, func() error {
			left, err := services.List(s.ctx, metav1.ListOptions{})
			if err == nil && len(left.Items) > 0 {
				err = fmt.Errorf("%d Services are there", len(left.Items))
			}
			ending, podErr := pods.List(s.ctx, metav1.ListOptions{})
			if podErr == nil && len(ending.Items) > 0 {
				podErr = fmt.Errorf("%d pods are there", len(ending.Items))
			}
			return errors.Join(err, podErr)
		})
		// Kubernetes takes its time with what is left.
		s.must(w.Client.CoreV1().Namespaces().Delete(s.ctx, s.namespace, metav1.DeleteOptions{}))
		s.must(w.Err())
		excused := 0
		for _, line := range controllerErrors(t, w.Cluster, s.began) {
			if s.excused(line) {
				excused++
				continue
			}
			t.Errorf("the controller logged an error: %s", line)
		}
		if excused > 0 {
			t.Logf("the controller logged %d errors that the test brought about", excused)
		}
	})
	return s
}

// in is the stage for a part of the test.
func (s *stage) in(t *testing.T) *stage {
	part := *s
	part.T, part.ctx = t, s.context(t)
	return &part
}

func (s *stage) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

// eventually waits until a check succeeds, and returns how long that took.
func (s *stage) eventually(what string, within time.Duration, check func() error) time.Duration {
	s.Helper()
	began := time.Now()
	var last error
	err := wait.PollUntilContextTimeout(s.ctx, poll, within, true, func(context.Context) (bool, error) {
		last = check()
		return last == nil, nil
	})
	if err != nil {
		s.Fatalf("not within %v: %s: %v", within, what, errors.Join(last, s.ctx.Err()))
	}
	return time.Since(began)
}

// shutdownDelay is how long a pod of these tests answers after it was told to end: longer than NSX needs to see that its node has no
// ready pods any more.
const shutdownDelay = 12

// webPort is the port of the pods.
const webPort = 8080

// pods starts a web server on each of the nodes, and waits until they are ready. They have the label app.
func (s *stage) pods(app string, nodes ...*cluster.Node) []*corev1.Pod {
	s.Helper()
	var pods []*corev1.Pod
	for _, n := range nodes {
		spec := webPod()
		spec.NodeName = n.Name
		pod, err := s.Client.CoreV1().Pods(s.namespace).Create(s.ctx, &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{GenerateName: app + "-" + n.Name + "-", Labels: map[string]string{"app": app}},
			Spec:       spec,
		}, metav1.CreateOptions{})
		s.must(err)
		pods = append(pods, pod)
	}
	for i, pod := range pods {
		s.eventually(fmt.Sprintf("pod %s is ready", pod.Name), podWithin, func() error {
			var err error
			pods[i], err = s.Client.CoreV1().Pods(s.namespace).Get(s.ctx, pod.Name, metav1.GetOptions{})
			if err != nil {
				return err
			}
			if !slices.ContainsFunc(pods[i].Status.Conditions, func(c corev1.PodCondition) bool {
				return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
			}) {
				return fmt.Errorf("it is %s, %+v", pods[i].Status.Phase, pods[i].Status.ContainerStatuses)
			}
			return nil
		})
	}
	return pods
}

// webPod is a web server that answers for a while after it was told to end, and says so: with policy Local, kube-proxy sends to
// pods that end, as long as they serve and there are no others.
func webPod() corev1.PodSpec {
	grace := int64(shutdownDelay + 5)
	return corev1.PodSpec{
		TerminationGracePeriodSeconds: &grace,
		Containers: []corev1.Container{{
			Name: "web", Image: cluster.AgnhostImage,
			Args: []string{"netexec", fmt.Sprintf("--http-port=%d", webPort), fmt.Sprintf("--delay-shutdown=%d", shutdownDelay)},
			ReadinessProbe: &corev1.Probe{
				PeriodSeconds: 1,
				ProbeHandler:  corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/healthz", Port: intstr.FromInt32(webPort)}},
			},
		}},
	}
}

// service makes a Service of type LoadBalancer for the pods of an app, and waits for its address.
func (s *stage) service(name, app string, policy corev1.ServiceExternalTrafficPolicy, edit ...func(*corev1.Service)) (*corev1.Service, netip.Addr) {
	s.Helper()
	svc := loadBalancer(name, app, policy)
	for _, e := range edit {
		e(svc)
	}
	_, err := s.Client.CoreV1().Services(s.namespace).Create(s.ctx, svc, metav1.CreateOptions{})
	s.must(err)
	return s.addressed(name)
}

func loadBalancer(name, app string, policy corev1.ServiceExternalTrafficPolicy) *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.ServiceSpec{
			Type: corev1.ServiceTypeLoadBalancer, ExternalTrafficPolicy: policy,
			Selector: map[string]string{"app": app},
			Ports:    []corev1.ServicePort{{Name: "http", Port: 80, TargetPort: intstr.FromInt32(webPort)}},
		},
	}
}

// addressed waits until a Service has an address.
func (s *stage) addressed(name string) (svc *corev1.Service, vip netip.Addr) {
	s.Helper()
	s.eventually("Service "+name+" has an address", addressWithin, func() error {
		var err error
		if svc, err = s.Client.CoreV1().Services(s.namespace).Get(s.ctx, name, metav1.GetOptions{}); err != nil {
			return err
		}
		vip = addressOf(svc)
		if !vip.IsValid() {
			return errors.New("it has none")
		}
		return nil
	})
	return svc, vip
}

// addressOf is what the Service's status shows; the zero Addr when that is nothing.
func addressOf(svc *corev1.Service) netip.Addr {
	if len(svc.Status.LoadBalancer.Ingress) == 0 {
		return netip.Addr{}
	}
	a, _ := netip.ParseAddr(svc.Status.LoadBalancer.Ingress[0].IP)
	return a
}

// patch changes a Service by a merge patch.
func (s *stage) patch(name, patch string) {
	s.Helper()
	_, err := s.Client.CoreV1().Services(s.namespace).Patch(s.ctx, name, "application/merge-patch+json", []byte(patch), metav1.PatchOptions{})
	s.must(err)
}

// keeps checks that a Service still shows its address.
func (s *stage) keeps(name string, vip netip.Addr) {
	s.Helper()
	svc, err := s.Client.CoreV1().Services(s.namespace).Get(s.ctx, name, metav1.GetOptions{})
	s.must(err)
	if got := addressOf(svc); got != vip {
		s.Errorf("Service %s shows %v, had %v", name, got, vip)
	}
}
