package transport

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsx"
)

func response(method string, code int, body string, header ...string) *http.Response {
	req, _ := http.NewRequest(method, "https://a.example"+aPool+"?cursor=x", nil)
	resp, _ := status(code, body, header...)(req)
	return resp
}

func TestCheck(t *testing.T) {
	for name, tt := range map[string]struct {
		resp *http.Response
		want nsx.APIError
	}{
		"NSX": {
			response("PUT", 412, `{"httpStatus":"PRECONDITION_FAILED","error_code":206,"module_name":"common-services","error_message":"Stale.","details":"","related_errors":[]}`),
			nsx.APIError{Method: "PUT", Status: 412, Code: 206, Message: "Stale.", Kind: nsx.ErrStaleRevision},
		},
		"code is a string": {
			response("GET", 404, `{"error_code":"600","error_message":"not here"}`),
			nsx.APIError{Method: "GET", Status: 404, Code: 600, Message: "not here", Kind: nsx.ErrNotFound},
		},
		"related errors": {
			response("POST", 400, `{"error_code":255,"error_message":"Bad.","related_errors":[{"error_code":1,"error_message":"port"},{"error_message":" ip ","related_errors":[{"error_message":"deep"}]}]}`),
			nsx.APIError{Method: "POST", Status: 400, Code: 255, Message: "Bad.; port; ip; deep", Kind: nsx.ErrInvalid},
		},
		"fields of wrong types": {
			response("POST", 400, `{"error_code":{"a":1},"error_message":"Bad.","related_errors":"none"}`),
			nsx.APIError{Method: "POST", Status: 400, Message: "Bad.", Kind: nsx.ErrInvalid},
		},
		"code out of range": {
			response("POST", 400, `{"error_code":99999999999999999999,"error_message":"Bad."}`),
			nsx.APIError{Method: "POST", Status: 400, Message: "Bad.", Kind: nsx.ErrInvalid},
		},
		"not NSX's": {
			response("GET", 502, "<html>\n"+strings.Repeat("ä", 200)),
			nsx.APIError{Method: "GET", Status: 502, Message: "<html>\n" + strings.Repeat("ä", 96), Kind: nsx.ErrUnavailable},
		},
		"other JSON": {
			response("GET", 400, `["no"]`),
			nsx.APIError{Method: "GET", Status: 400, Message: `["no"]`, Kind: nsx.ErrInvalid},
		},
		"no body":           {response("DELETE", 403, ""), nsx.APIError{Method: "DELETE", Status: 403, Kind: nsx.ErrUnauthorized}},
		"unauthorized":      {response("GET", 401, ""), nsx.APIError{Method: "GET", Status: 401, Kind: nsx.ErrUnauthorized}},
		"throttled":         {response("GET", 429, "", "Retry-After", "3"), nsx.APIError{Method: "GET", Status: 429, Kind: nsx.ErrThrottled, RetryAfter: 3 * time.Second}},
		"throttled by 503":  {response("PUT", 503, `{"error_code":604}`), nsx.APIError{Method: "PUT", Status: 503, Code: 604, Kind: nsx.ErrThrottled}},
		"conflict":          {response("PUT", 409, `{"error_code":206}`), nsx.APIError{Method: "PUT", Status: 409, Code: 206, Kind: nsx.ErrStaleRevision}},
		"other conflict":    {response("PUT", 409, `{"error_code":7}`), nsx.APIError{Method: "PUT", Status: 409, Code: 7, Kind: nsx.ErrInvalid}},
		"write with 500":    {response("PUT", 500, ""), nsx.APIError{Method: "PUT", Status: 500, Kind: nsx.ErrAmbiguous}},
		"read with 500":     {response("GET", 500, ""), nsx.APIError{Method: "GET", Status: 500, Kind: nsx.ErrUnavailable}},
		"bad certificate":   {response("PUT", 500, `{"error_code":99}`), nsx.APIError{Method: "PUT", Status: 500, Code: 99, Kind: nsx.ErrUnauthorized}},
		"precondition":      {response("PUT", 412, ""), nsx.APIError{Method: "PUT", Status: 412, Kind: nsx.ErrStaleRevision}},
		"bad XSRF token":    {response("PUT", 403, `{"error_code":98}`), nsx.APIError{Method: "PUT", Status: 403, Code: 98, Kind: nsx.ErrUnauthorized}},
		"method not there":  {response("PUT", 405, ""), nsx.APIError{Method: "PUT", Status: 405, Kind: nsx.ErrInvalid}},
		"a redirect":        {response("PUT", 302, ""), nsx.APIError{Method: "PUT", Status: 302, Kind: nsx.ErrUnavailable}},
		"very long message": {response("PUT", 400, `{"error_message":"`+strings.Repeat("x", 5000)+`"}`), nsx.APIError{Method: "PUT", Status: 400, Message: strings.Repeat("x", 2000), Kind: nsx.ErrInvalid}},
	} {
		t.Run(name, func(t *testing.T) {
			body := &closable{Reader: tt.resp.Body}
			tt.resp.Body = body
			err := Check(tt.resp, nil)
			var got *nsx.APIError
			if !errors.As(err, &got) {
				t.Fatalf("got %v, want an APIError", err)
			}
			tt.want.Path = aPool
			if diff := cmp.Diff(tt.want, *got, cmpopts.EquateErrors()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if !body.closed {
				t.Error("the body was not closed")
			}
		})
	}
}

func TestCheckPassesThrough(t *testing.T) {
	if err := Check(nil, nsx.ErrAmbiguous); err != nsx.ErrAmbiguous {
		t.Errorf("got %v, want the error given", err)
	}
	resp := response("GET", 201, "{}")
	if err := Check(resp, nil); err != nil {
		t.Errorf("success: %v", err)
	}
	if b, _ := io.ReadAll(resp.Body); string(b) != "{}" {
		t.Errorf("the body of a success was read")
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(412, `{"error_code":206,"error_message":"x","related_errors":[{"error_message":"y"}]}`, "3")
	f.Add(503, `{"error_code":"604"}`, "")
	f.Add(500, `<html>`, "Wed, 21 Oct 2015 07:28:00 GMT")
	f.Add(400, `{"related_errors":[{"related_errors":[{"related_errors":[{}]}]}]}`, "-1")
	f.Add(429, "\xff\xfe", "999999999999")
	sentinels := []error{nsx.ErrNotFound, nsx.ErrStaleRevision, nsx.ErrThrottled, nsx.ErrUnauthorized, nsx.ErrInvalid, nsx.ErrUnavailable, nsx.ErrAmbiguous}
	f.Fuzz(func(t *testing.T, code int, body, retryAfter string) {
		for _, method := range []string{"GET", "POST"} {
			resp := response(method, code, body, "Retry-After", retryAfter)
			secondsInRetryAfter(resp.Header, time.Unix(1<<30, 0))
			e := decode(resp, []byte(body))
			matches := 0
			for _, s := range sentinels {
				if errors.Is(e, s) {
					matches++
				}
			}
			if matches != 1 {
				t.Errorf("%v matches %d sentinels, want 1", e, matches)
			}
			if len(e.Message) > maxMessage*3 || !utf8.ValidString(e.Message) {
				t.Errorf("message of %d bytes: %q", len(e.Message), e.Message)
			}
			if e.RetryAfter < 0 {
				t.Errorf("RetryAfter %v", e.RetryAfter)
			}
			var plain struct {
				Code json.Number `json:"error_code"`
			}
			if json.Unmarshal([]byte(body), &plain) == nil && plain.Code != "" {
				if n, err := plain.Code.Int64(); err == nil && int64(e.Code) != n {
					t.Errorf("code %d, want %s", e.Code, plain.Code)
				}
			}
			if isRead(method) && errors.Is(e, nsx.ErrAmbiguous) {
				t.Errorf("a read is ambiguous: %v", e)
			}
		}
	})
}
