package lb

import (
	"context"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/klog/v2"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/config"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsx"
)

// AuditAction is what an audit does about something.
type AuditAction string

// The actions of an audit.
const (
	// ActionRepair: what was changed or deleted is put right.
	ActionRepair AuditAction = "repair"
	// ActionRemove: what belongs to a Service that is gone is removed.
	ActionRemove AuditAction = "remove"
	// ActionRelease: an address that nobody accounts for is released.
	ActionRelease AuditAction = "release"
	// ActionReport: it is told, and nothing is done.
	ActionReport AuditAction = "report"
	// ActionSight: seen for the first time, or too short a time ago; nothing is done before it is seen again.
	ActionSight AuditAction = "sight"
	// ActionFail: something was tried and did not succeed. The next audit tries again.
	ActionFail AuditAction = "fail"
)

// AuditReport is what one audit found, and what it did about it.
type AuditReport struct {
	Mode     config.AuditMode
	Started  time.Time
	Duration time.Duration
	// Entries in the order in which things were found.
	Entries []AuditEntry
}

// AuditEntry is one thing that an audit found.
type AuditEntry struct {
	nsx.Finding
	// Service that it belongs to, as namespace/name; empty for what belongs to no Service, or to several.
	Service string
	Action  AuditAction
}

// AuditState is what is known of audits and by them.
type AuditState struct {
	// Last is when the last one ended that was complete, Took how long it took; both zero while there was none.
	Last time.Time
	Took time.Duration
	// SharedDown and OwnDown count the pools all of whose members are DOWN: those that Services share (policy Cluster), and
	// those that a Service has for itself (policy Local).
	SharedDown, OwnDown int
}

// AuditState tells what is known of audits. It makes no call.
func (e *Engine) AuditState() AuditState {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.auditState
}

// audited takes note of an audit that has ended.
func (e *Engine) audited(r AuditReport, err error) {
	if err != nil {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.auditState.Last, e.auditState.Took = e.o.Clock.Now(), r.Duration
}

// act is the action that is taken in the round's mode.
func (r *round) act(a AuditAction) AuditAction {
	if r.repairs {
		return a
	}
	return ActionReport
}

// done says for people what becomes of what an action is about.
func (r *round) done(a AuditAction) string {
	words := map[AuditAction][2]string{
		ActionRepair:  {"is put right", "would be put right"},
		ActionRemove:  {"is removed", "would be removed"},
		ActionRelease: {"is released", "would be released"},
	}[a]
	if r.repairs {
		return words[0]
	}
	return words[1]
}

// tell makes one event about findings, on the Service or for nil on the cluster, and takes note of each.
func (r *round) tell(ctx context.Context, svc *corev1.Service, reason, message string, action AuditAction, found ...nsx.Finding) {
	if len(found) == 0 {
		return
	}
	service := ""
	if svc != nil {
		service = OwnerOf(svc).Name
	}
	for _, f := range found {
		r.note(ctx, service, action, f)
	}
	r.event(svc, reason, message, found)
}

// event is the event of tell alone.
func (r *round) event(svc *corev1.Service, reason, message string, found []nsx.Finding) {
	var texts []string
	for _, f := range found {
		if reason == ReasonDrift {
			texts = append(texts, textOf(f))
		}
	}
	if len(texts) > 0 {
		message += ": " + strings.Join(texts, "; ")
	}
	e := Event{Type: corev1.EventTypeWarning, Reason: reason, Message: message}
	if svc != nil {
		e.Namespace, e.Name, e.UID = svc.Namespace, svc.Name, string(svc.UID)
	}
	r.e.o.Record(e)
}

// note puts a finding into the report, the log and the metrics.
func (r *round) note(ctx context.Context, service string, action AuditAction, f nsx.Finding) {
	entry := AuditEntry{Finding: f, Service: service, Action: action}
	r.report.Entries = append(r.report.Entries, entry)
	if r.e.o.Audited != nil {
		r.e.o.Audited(entry)
	}
	klog.FromContext(ctx).Info("Audit", "action", action, "kind", f.Kind, "id", f.ID, "service", service, "found", f.What, "lastModifiedBy", f.Edit.By)
}

// textOf is a finding for people.
func textOf(f nsx.Finding) string {
	text := strings.ReplaceAll(string(f.Kind), "_", " ") + " "
	if f.ID != "" {
		text += f.ID + " "
	}
	return text + f.What + " (" + f.Edit.String() + ")"
}
