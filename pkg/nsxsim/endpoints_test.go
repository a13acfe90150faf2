package nsxsim_test

import (
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim"
)

// What is listed is served.
func TestEndpointsAreServed(t *testing.T) {
	for _, version := range []string{"2.3.0", "3.2", "9.0"} {
		r := newRig(t, nsxsim.Options{Version: version})
		all := r.Endpoints()
		if len(all) < 20 {
			t.Errorf("%s has %d endpoints only", version, len(all))
		}
		for _, e := range all {
			for _, what := range e.Does {
				method, query, _ := strings.Cut(what, " ?")
				req := httptest.NewRequest(method, "/", strings.NewReader("{}"))
				req.URL = &url.URL{Path: strings.ReplaceAll(e.Path, "{id}", "x"), RawQuery: query}
				req.SetBasicAuth("admin", "secret")
				w := httptest.NewRecorder()
				r.ServeHTTP(w, req)
				entries := r.Journal().Entries()
				if op := entries[len(entries)-1].Op; strings.HasSuffix(op, "(unknown)") || w.Code == 405 || strings.Contains(w.Body.String(), "requested URI") {
					t.Errorf("%s: %s %s is %s: %d %s", version, what, e.Path, op, w.Code, w.Body)
				}
			}
		}
	}
}
