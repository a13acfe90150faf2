package transport

import (
	"net/http"
	"strings"
	"testing"
	"testing/synctest"

	"k8s.io/component-base/metrics"
	"k8s.io/component-base/metrics/testutil"
)

func TestMetrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		registry := metrics.NewKubeRegistry()
		m := NewMetrics()
		m.MustRegister(registry.MustRegister)
		script := []answerFunc{nsxError(429, 102), answerLost, status(200, "{}"), nsxError(404, 600)}
		tr, _ := newTransport(t, Options{Metrics: m}, func(n int, req *http.Request) (*http.Response, error) { return script[n-1](req) })
		_, _ = do(t.Context(), tr, "PUT", aPool, "{}")
		_, _ = do(WithPriority(t.Context(), Background), tr, "GET", aPool+"/status", "")
		want := `
# HELP nsxt_api_requests_total [ALPHA] Requests sent to NSX, retries included, by method, kind of object and class of the answer's status (none: no answer).
# TYPE nsxt_api_requests_total counter
nsxt_api_requests_total{kind="loadbalancer/pools",method="PUT",status="2xx"} 1
nsxt_api_requests_total{kind="loadbalancer/pools",method="PUT",status="4xx"} 1
nsxt_api_requests_total{kind="loadbalancer/pools",method="PUT",status="none"} 1
nsxt_api_requests_total{kind="loadbalancer/pools/status",method="GET",status="4xx"} 1
# HELP nsxt_api_retries_total [ALPHA] Requests sent to NSX again after an earlier try, by method and kind of object.
# TYPE nsxt_api_retries_total counter
nsxt_api_retries_total{kind="loadbalancer/pools",method="PUT"} 2
# HELP nsxt_api_throttled_total [ALPHA] Requests that NSX refused for their rate or number.
# TYPE nsxt_api_throttled_total counter
nsxt_api_throttled_total 1
# HELP nsxt_api_in_flight_requests [ALPHA] Requests that hold one of the places of the concurrency limit.
# TYPE nsxt_api_in_flight_requests gauge
nsxt_api_in_flight_requests 0
`
		if err := testutil.GatherAndCompare(registry, strings.NewReader(want), "nsxt_api_requests_total", "nsxt_api_retries_total", "nsxt_api_throttled_total", "nsxt_api_in_flight_requests"); err != nil {
			t.Error(err)
		}
		for priority, n := range map[string]uint64{"foreground": 3, "background": 1} {
			h, err := testutil.GetHistogramVecFromGatherer(registry, "nsxt_api_queue_duration_seconds", map[string]string{"priority": priority})
			if err != nil || h.GetAggregatedSampleCount() != n {
				t.Errorf("%d %s requests have queued, want %d; %v", h.GetAggregatedSampleCount(), priority, n, err)
			}
		}
	})
}

func TestKindOfPath(t *testing.T) {
	for path, want := range map[string]string{
		"/api/v1/loadbalancer/virtual-servers":                             "loadbalancer/virtual-servers",
		"/api/v1/loadbalancer/virtual-servers/4b3c":                        "loadbalancer/virtual-servers",
		"/api/v1/loadbalancer/application-profiles/default-tcp-lb-profile": "loadbalancer/application-profiles",
		"/api/v1/loadbalancer/services/4b3c/usage":                         "loadbalancer/services/usage",
		"/api/v1/loadbalancer/services/4b3c/pools/5a/status":               "loadbalancer/services/pools/status",
		"/api/v1/pools/ip-pools/5a/allocations":                            "pools/ip-pools/allocations",
		"/api/session/create":                                              "session/create",
		"/api/v1/node/version":                                             "node/version",
		"/policy/api/v1/infra/lb-pools/any-name":                           "infra/lb-pools",
		"/policy/api/v1/infra/ip-pools/vips/ip-allocations/web":            "infra/ip-pools/ip-allocations",
		"/anything/else":                                                   "other",
		"":                                                                 "other",
	} {
		if got := kindOfPath(path); got != want {
			t.Errorf("kindOfPath(%q) = %q, want %q", path, got, want)
		}
	}
}
