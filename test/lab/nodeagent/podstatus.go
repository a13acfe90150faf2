package nodeagent

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
)

// ReadyAnnotation on a Pod, with the value "false", makes it not ready, as a failing readiness probe does. It goes on
// serving.
const ReadyAnnotation = "lab.nsxt.io/ready"

// podStatus is the status of a Pod that runs: what it had, and all that a kubelet says about it.
func podStatus(pod *corev1.Pod, up *runningPod, now time.Time) corev1.PodStatus {
	status := *pod.Status.DeepCopy()
	ready := pod.Annotations[ReadyAnnotation] != "false"

	status.Phase = corev1.PodRunning
	status.Reason, status.Message = "", ""
	status.HostIP = up.machine.node.Address.String()
	status.HostIPs = []corev1.HostIP{{IP: status.HostIP}}
	status.PodIP = up.ip.String()
	status.PodIPs = []corev1.PodIP{{IP: status.PodIP}}
	if status.StartTime == nil {
		status.StartTime = &up.started
	}

	set := func(kind corev1.PodConditionType, yes bool, reason, message string) {
		c := corev1.PodCondition{
			Type: kind, Status: corev1.ConditionFalse, LastTransitionTime: metav1.NewTime(now), ObservedGeneration: pod.Generation,
			Reason: reason, Message: message,
		}
		if yes {
			c.Status, c.Reason, c.Message = corev1.ConditionTrue, "", ""
		}
		i := slices.IndexFunc(status.Conditions, func(old corev1.PodCondition) bool { return old.Type == kind })
		if i < 0 {
			status.Conditions = append(status.Conditions, c)
			return
		}
		if status.Conditions[i].Status == c.Status {
			c.LastTransitionTime = status.Conditions[i].LastTransitionTime
		}
		status.Conditions[i] = c
	}
	const reason, message = "ContainersNotReady", "annotation " + ReadyAnnotation + " is false"
	set(corev1.PodReadyToStartContainers, true, "", "")
	set(corev1.PodInitialized, true, "", "")
	set(corev1.ContainersReady, ready, reason, message)
	set(corev1.PodReady, ready, reason, message)
	status.ObservedGeneration = pod.Generation

	before := status.ContainerStatuses
	status.ContainerStatuses = nil
	for _, c := range pod.Spec.Containers {
		s := corev1.ContainerStatus{
			Name: c.Name, Image: c.Image, ImageID: "lab://echo",
			ContainerID: fmt.Sprintf("lab://%s-%s", up.run, c.Name),
			Ready:       ready, Started: new(true),
			State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: up.started}},
		}
		if i := slices.IndexFunc(before, func(old corev1.ContainerStatus) bool { return old.Name == c.Name }); i >= 0 {
			s.RestartCount = before[i].RestartCount
			if before[i].ContainerID != "" && before[i].ContainerID != s.ContainerID {
				s.RestartCount++
			}
		}
		status.ContainerStatuses = append(status.ContainerStatuses, s)
	}
	return status
}

// patchPodStatus writes what differs from the Pod's status. A Pod that is gone, or another one of its name, is left alone.
func (a *Agent) patchPodStatus(ctx context.Context, pod *corev1.Pod, status corev1.PodStatus) error {
	before, err := json.Marshal(corev1.Pod{Status: pod.Status})
	if err != nil {
		return fmt.Errorf("status of Pod: %w", err)
	}
	// The UID, in the patch alone, is a precondition.
	after, err := json.Marshal(corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: pod.UID}, Status: status})
	if err != nil {
		return fmt.Errorf("status of Pod: %w", err)
	}
	patch, err := strategicpatch.CreateTwoWayMergePatch(before, after, corev1.Pod{})
	if err != nil {
		return fmt.Errorf("status of Pod: %w", err)
	}
	if bytes.Equal(patch, fmt.Appendf(nil, `{"metadata":{"uid":%q}}`, pod.UID)) {
		return nil
	}
	_, err = a.client.CoreV1().Pods(pod.Namespace).Patch(ctx, pod.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil // its deletion or its newer version is on the way
	}
	return wrap("status of Pod", err)
}
