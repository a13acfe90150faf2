package cloud

import (
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/names"
)

// SetInformers implements cloudprovider.InformerUser. It is called before the informers start.
func (c *Cloud) SetInformers(factory informers.SharedInformerFactory) {
	logger := klog.FromContext(c.ctx)
	services := factory.Core().V1().Services().Informer()
	if err := services.SetTransform(adoptClass); err != nil {
		logger.Error(err, "Services with spec.loadBalancerClass are not served: the informer runs already")
	}
	lister := factory.Core().V1().Services().Lister()
	list := func() ([]*corev1.Service, bool) {
		if !services.HasSynced() {
			return nil, false
		}
		all, err := lister.List(labels.Everything())
		return all, err == nil
	}
	c.listServices.Store(&list)
	nodes := factory.Core().V1().Nodes()
	c.nodes.watch(nodes.Lister(), nodes.Informer().HasSynced)
	registration, err := nodes.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(any) { c.nodes.changed() },
		UpdateFunc: func(any, any) { c.nodes.changed() },
		DeleteFunc: func(any) { c.nodes.changed() },
	})
	if err != nil {
		logger.Error(err, "Nodes are not watched")
		return
	}
	c.work.Go(func() {
		// The first list counts once every node in it has been seen.
		if cache.WaitForCacheSync(c.ctx.Done(), registration.HasSynced) {
			c.nodes.changed()
		}
	})
}

// services lists all Services of the cluster; ok is false while they are not known.
func (c *Cloud) services() (all []*corev1.Service, ok bool) {
	if list := c.listServices.Load(); list != nil {
		return (*list)()
	}
	return nil, false
}

// adoptClass makes the framework serve a Service whose spec.loadBalancerClass is ours, which it passes over otherwise:
// in this process's view the class moves to the annotation that says the same. What the framework writes are patches made
// of two such views, so that the change never reaches the API server.
func adoptClass(obj any) (any, error) {
	svc, ok := obj.(*corev1.Service)
	if !ok {
		return obj, nil
	}
	svc.ManagedFields = nil // nobody here reads them
	if svc.Spec.LoadBalancerClass == nil {
		return svc, nil
	}
	class, ours := strings.CutPrefix(*svc.Spec.LoadBalancerClass, names.LoadBalancerClassPrefix)
	if !ours {
		return svc, nil
	}
	svc.Spec.LoadBalancerClass = nil
	if svc.Annotations[names.AnnotationClass] == "" {
		if svc.Annotations == nil {
			svc.Annotations = map[string]string{}
		}
		svc.Annotations[names.AnnotationClass] = class
	}
	return svc, nil
}

// nodeSource brings the complete list of Nodes, whenever one of them changes, to whom it concerns.
type nodeSource struct {
	mu     sync.Mutex
	lister corelisters.NodeLister
	synced cache.InformerSynced
	tell   func([]*corev1.Node)
}

func (s *nodeSource) watch(lister corelisters.NodeLister, synced cache.InformerSynced) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lister, s.synced = lister, synced
}

func (s *nodeSource) subscribe(tell func([]*corev1.Node)) {
	s.mu.Lock()
	s.tell = tell
	s.mu.Unlock()
	s.changed()
}

// changed passes the list on; an incomplete one is kept back, since a node that is missing would be removed from NSX.
func (s *nodeSource) changed() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.tell == nil || s.lister == nil || !s.synced() {
		return
	}
	nodes, err := s.lister.List(labels.Everything())
	if err != nil {
		return // a lister reads from memory and does not fail
	}
	s.tell(nodes)
}
