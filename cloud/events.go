package cloud

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/lb"
)

// eventRecorder turns the engine's events into those of Kubernetes. It does not block.
type eventRecorder struct{ recorder record.EventRecorder }

func (r eventRecorder) record(e lb.Event) {
	ref := &corev1.ObjectReference{Kind: "Service", APIVersion: "v1", Namespace: e.Namespace, Name: e.Name, UID: types.UID(e.UID)}
	if e.Name == "" {
		// About the cluster as a whole. Events about no namespaced object are kept in the namespace default.
		ref = &corev1.ObjectReference{Kind: "Namespace", APIVersion: "v1", Namespace: "default", Name: "kube-system"}
	}
	r.recorder.Event(ref, e.Type, e.Reason, e.Message)
}
