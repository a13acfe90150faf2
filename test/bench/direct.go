package bench

import (
	"net/http"
	"net/http/httptest"
	"time"
)

// Direct is the network to a handler in the same process: no sockets, so that virtual time can pass. A call takes the
// latency, half of it before the handler sees the request.
type Direct struct {
	Handler http.Handler
	Latency time.Duration
}

// RoundTrip implements http.RoundTripper.
func (d Direct) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := d.travel(r); err != nil {
		return nil, err
	}
	in := r.Clone(r.Context())
	in.RequestURI, in.RemoteAddr = r.URL.RequestURI(), "127.0.0.1:1"
	if in.Body == nil {
		in.Body = http.NoBody
	}
	w := httptest.NewRecorder()
	d.Handler.ServeHTTP(w, in)
	if err := d.travel(r); err != nil {
		return nil, err
	}
	resp := w.Result()
	resp.Request = r
	return resp, nil
}

func (d Direct) travel(r *http.Request) error {
	if d.Latency == 0 {
		return r.Context().Err()
	}
	t := time.NewTimer(d.Latency / 2)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-r.Context().Done():
		return r.Context().Err()
	}
}
