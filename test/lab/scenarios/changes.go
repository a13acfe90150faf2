package scenarios

import (
	"context"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/config"
)

// monitor is how often NSX checks nodes, in the default class.
func (s *Stage) monitor() config.Monitor {
	class, ok := s.CloudConfig.DefaultClass()
	if !ok {
		s.fail("the cloud config has no default class")
	}
	return class.Monitor
}

// program is row 15. The Deployment is typed, the Service is made by a Go program: this one.
func program(s *Stage) {
	s.kubectl("apply", "-f", "nginx.yaml")
	_, err := s.Client.CoreV1().Services(s.namespace).Create(s.ctx, &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: "from-go"},
		Spec: corev1.ServiceSpec{
			Type:     corev1.ServiceTypeLoadBalancer,
			Selector: map[string]string{"app": "nginx"},
			Ports:    []corev1.ServicePort{{Port: 8080, TargetPort: intstr.FromInt32(80)}},
		},
	}, metav1.CreateOptions{})
	s.need(err)
	s.wantLoadBalancer("from-go")
}

// stays is row 16.
func stays(s *Stage) {
	const name = "nginx-svc"
	s.kubectl("apply", "-f", "nginx.yaml", "-f", "service-loadbalancer.yaml")
	ip := s.wantLoadBalancer(name)
	status := s.service(name).Status.LoadBalancer
	unchanged := func(after string) {
		if got := s.service(name).Status.LoadBalancer; !equality.Semantic.DeepEqual(got, status) {
			s.fail("after %s the status is %+v, was %+v", after, got, status)
		}
		s.answers(url("http", ip, int(s.ports.HTTP)), 2)
		if !s.allocated(ip) {
			s.fail("after %s %s is not allocated", after, ip)
		}
	}
	// onNSX waits until the controller has done what a change of the ports asks for: then it has seen all before it.
	ports := []string{fmt.Sprint(s.ports.HTTP)}
	addPort := func(port int) {
		s.kubectl("patch", "service", name, "--type=json", "-p",
			fmt.Sprintf(`[{"op":"add","path":"/spec/ports/-","value":{"name":"p%d","port":%d,"targetPort":80}}]`, port, port))
		ports = append(ports, fmt.Sprint(port))
		s.eventually(fmt.Sprintf("port %d in NSX", port), 30*time.Second, func() error {
			var got []string
			for _, vs := range s.virtualServers(ip) {
				got = append(got, vs.Strings("ports")...)
			}
			slices.Sort(got)
			if want := slices.Sorted(slices.Values(ports)); !slices.Equal(got, want) {
				return fmt.Errorf("ports %v, want %v", got, want)
			}
			return nil
		})
		s.answers(url("http", ip, port), 2)
	}

	// A second port needs the first one to have a name.
	s.kubectl("patch", "service", name, "--type=json", "-p", `[{"op":"add","path":"/spec/ports/0/name","value":"http"}]`)
	addPort(9001)
	unchanged("a new port")
	s.kubectl("label", "service", name, "tier=front")
	unchanged("a label")
	s.kubectl("annotate", "service", name, "example.com/owner=me")
	addPort(9002)
	unchanged("an annotation")
	s.kubectl("set", "selector", "service", name, "app=nobody")
	s.endpoints(name, 0)
	s.kubectl("set", "selector", "service", name, "app=nginx")
	s.endpoints(name, 2)
	unchanged("other selectors")
	for _, policy := range []string{"Local", "Cluster"} {
		s.kubectl("patch", "service", name, "-p", fmt.Sprintf(`{"spec":{"externalTrafficPolicy":%q}}`, policy))
		s.eventually("requests are answered with policy "+policy, 15*time.Second, func() error {
			for range 6 {
				if _, err := s.HTTPGet(s.ctx, url("http", ip, int(s.ports.HTTP))); err != nil {
					return err
				}
			}
			return nil
		})
		unchanged("policy " + policy)
	}
	ctx, cancel := context.WithTimeout(s.ctx, time.Minute)
	defer cancel()
	s.need(s.Controller.Restart(ctx))
	addPort(9003)
	unchanged("a restart of the controller")
	s.need(s.Controller.Kill())
	unchanged("a crash of the controller")
	s.need(s.Controller.Start())
	addPort(9004)
	unchanged("a new controller")
	s.saw("unchanged after ports, label, annotation, selector, policy, restart, crash")
}
