package transport

import (
	"strings"

	"k8s.io/component-base/metrics"
)

// Metrics are what a Transport counts. They count for nothing until they are registered.
type Metrics struct {
	requests  *metrics.CounterVec
	duration  *metrics.HistogramVec
	queueTime *metrics.HistogramVec
	throttled *metrics.Counter
	retries   *metrics.CounterVec
	inFlight  *metrics.Gauge
}

// NewMetrics makes the metrics of one Transport.
func NewMetrics() *Metrics {
	const namespace, subsystem = "nsxt", "api"
	return &Metrics{
		requests: metrics.NewCounterVec(&metrics.CounterOpts{
			Namespace: namespace, Subsystem: subsystem, Name: "requests_total", StabilityLevel: metrics.ALPHA,
			Help: "Requests sent to NSX, retries included, by method, kind of object and class of the answer's status (none: no answer).",
		}, []string{"method", "kind", "status"}),
		duration: metrics.NewHistogramVec(&metrics.HistogramOpts{
			Namespace: namespace, Subsystem: subsystem, Name: "request_duration_seconds", StabilityLevel: metrics.ALPHA,
			Help:    "Time from sending a request to NSX to the end of its answer, by method and kind of object.",
			Buckets: metrics.ExponentialBuckets(0.005, 2, 14),
		}, []string{"method", "kind"}),
		queueTime: metrics.NewHistogramVec(&metrics.HistogramOpts{
			Namespace: namespace, Subsystem: subsystem, Name: "queue_duration_seconds", StabilityLevel: metrics.ALPHA,
			Help:    "Time that a request waited for the rate and concurrency limits, by priority.",
			Buckets: metrics.ExponentialBuckets(0.001, 2, 17),
		}, []string{"priority"}),
		throttled: metrics.NewCounter(&metrics.CounterOpts{
			Namespace: namespace, Subsystem: subsystem, Name: "throttled_total", StabilityLevel: metrics.ALPHA,
			Help: "Requests that NSX refused for their rate or number.",
		}),
		retries: metrics.NewCounterVec(&metrics.CounterOpts{
			Namespace: namespace, Subsystem: subsystem, Name: "retries_total", StabilityLevel: metrics.ALPHA,
			Help: "Requests sent to NSX again after an earlier try, by method and kind of object.",
		}, []string{"method", "kind"}),
		inFlight: metrics.NewGauge(&metrics.GaugeOpts{
			Namespace: namespace, Subsystem: subsystem, Name: "in_flight_requests", StabilityLevel: metrics.ALPHA,
			Help: "Requests that hold one of the places of the concurrency limit.",
		}),
	}
}

// MustRegister registers the metrics, and panics if the registry has them already.
func (m *Metrics) MustRegister(register func(...metrics.Registerable)) {
	register(m.requests, m.duration, m.queueTime, m.throttled, m.retries, m.inFlight)
}

// kindOfPath is what a path is about, without prefix and ids: /api/v1/loadbalancer/pools/X is loadbalancer/pools. Ids can
// be any text, so it keeps the words of the API that it knows; their combinations are few.
func kindOfPath(path string) string {
	var words []string
	for word := range strings.SplitSeq(path, "/") {
		if isWord(word) {
			words = append(words, word)
		}
	}
	if len(words) == 0 {
		return "other"
	}
	return strings.Join(words, "/")
}

func isWord(s string) bool {
	switch s {
	case "loadbalancer", "services", "virtual-servers", "pools", "monitors", "application-profiles", "persistence-profiles",
		"rules", "client-ssl-profiles", "server-ssl-profiles", "tcp-profiles",
		"status", "statistics", "usage", "debug-info",
		"ip-pools", "allocations", "ns-groups", "effective-ip-address-members", "ip-sets",
		"logical-routers", "logical-router-ports", "routing", "advertisement", "edge-clusters",
		"node", "version", "trust-management", "certificates", "search", "query", "session", "create", "destroy",
		"infra", "lb-services", "lb-virtual-servers", "lb-pools", "lb-monitor-profiles", "lb-app-profiles",
		"lb-persistence-profiles", "ip-allocations", "domains", "groups", "realized-state", "realized-entities":
		return true
	}
	return false
}
