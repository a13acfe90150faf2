package nsxsim

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
)

// Error codes of the Manager API, as NSX's own clients know them.
const (
	codeBadXSRFToken     = 98
	codeUntrustedCert    = 99
	codeTooManyRequests  = 102
	codeStaleRevision    = 206
	codeValidation       = 255
	codeForeignPrincipal = 289
	codeForeignOverwrite = 8327
	codeBadCredentials   = 403
	codeNotFound         = 600
	codeRangeShrunk      = 5016
	codeSearchIndexing   = 60508
	codePoolExhausted    = 5109
	codeNotInPool        = 5110
	codeChosenAddress    = 5123
	codeAlreadyAllocated = 5141
)

// Error codes that no reference settles: clients must go by the status and what
// they asked for.
const (
	codeURINotFound       = 98
	codeBadJSON           = 220
	codeTooManyConcurrent = 604
	codeTooManyAs429      = 98
	codeNotAllocated      = 5115
	codeInUse             = 23508
	codeReferenceMissing  = 23509
	codeLBConflict        = 23519
	codeCapacity          = 23529
)

// Error is a refusal by the simulated manager: what a client gets as the body of
// an answer that is not 2xx, and what an Editor returns.
type Error struct {
	Status  int    // HTTP status
	Code    int    // error_code
	Module  string // module_name
	Message string // error_message
}

func (e *Error) Error() string {
	return fmt.Sprintf("nsx: %d (error_code %d): %s", e.Status, e.Code, e.Message)
}

// httpStatus is the name NSX gives the status in the body: BAD_REQUEST for 400.
func (e *Error) httpStatus() string {
	return strings.ToUpper(strings.ReplaceAll(http.StatusText(e.Status), " ", "_"))
}

// body is the answer's JSON. Managers write error_code as an int or, on some
// paths, as a string.
func (e *Error) body(codeAsString bool) []byte {
	var code any = e.Code
	if codeAsString {
		code = strconv.Itoa(e.Code)
	}
	return encode(map[string]any{
		"httpStatus":     e.httpStatus(),
		"error_code":     code,
		"module_name":    e.Module,
		"error_message":  e.Message,
		"details":        "",
		"related_errors": []any{},
	})
}

func refuse(code int, format string, args ...any) *Error {
	return &Error{Status: http.StatusBadRequest, Code: code, Module: "common-services", Message: fmt.Sprintf(format, args...)}
}

func refuseLB(code int, format string, args ...any) *Error {
	e := refuse(code, format, args...)
	e.Module = "LOAD-BALANCER"
	return e
}

func refuseIDs(code int, format string, args ...any) *Error {
	e := refuse(code, format, args...)
	e.Module = "id-allocation service"
	return e
}

// invalid is the answer to bodies that break the rules of single fields.
func invalid(problems ...string) *Error {
	return refuse(codeValidation, "Field level validation errors: {%s}", strings.Join(problems, ", "))
}

func notFound(id string) *Error {
	return &Error{Status: http.StatusNotFound, Code: codeNotFound, Module: "common-services",
		Message: fmt.Sprintf("The requested object : %s could not be found. Object identifiers are case sensitive.", id)}
}

func noSuchURI(path string) *Error {
	return &Error{Status: http.StatusNotFound, Code: codeURINotFound, Module: "common-services",
		Message: fmt.Sprintf("The requested URI: %s could not be found.", path)}
}

func forbidden() *Error {
	return &Error{Status: http.StatusForbidden, Code: codeBadCredentials, Module: "common-services",
		Message: "The role of the user does not permit the operation."}
}
