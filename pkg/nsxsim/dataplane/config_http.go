package dataplane

import (
	"net/netip"
	"time"
)

// HTTP is what a layer 7 virtual server does with requests, as its LbHttpProfile, SSL bindings, persistence profile
// and rules have it. Each request is balanced by itself, over a connection of its own to a member.
type HTTP struct {
	// XForwardedFor, when set, also tells members by X-Forwarded-Proto and X-Forwarded-Port how the client came.
	XForwardedFor     XForwardedFor
	RedirectToHTTPS   bool          // every request is redirected to the same URL with https
	RedirectTo        string        // every request is redirected to this URL
	RequestHeaderSize int           // bytes; larger ones are taken up to 32 KiB all the same
	RequestBodySize   int64         // bytes; 0: no limit
	ResponseTimeout   time.Duration // in which a member must send something; 0: 60 s
	// ServerKeepAlive: all requests of a client's connection that go to one pool are served by one member over one
	// connection, as NTLM needs it.
	ServerKeepAlive bool
	ToClient        *TLS // with which clients are spoken to; nil: none
	ToServer        *TLS // with which members are spoken to; nil: none
	Cookie          *CookiePersistence
	Rules           []Rule // in the order in which they apply
}

// XForwardedFor is what becomes of the header of that name.
type XForwardedFor string

// What may become of it; when empty it is passed on as it is.
const (
	ForwardedForInsert  XForwardedFor = "INSERT"  // the client's address is appended
	ForwardedForReplace XForwardedFor = "REPLACE" // the client's address takes the place of what was there
)

// CookieMode is how a cookie comes to name a member.
type CookieMode string

// Cookie modes.
const (
	CookieInsert  CookieMode = "INSERT"  // the load balancer sets a cookie of its own
	CookiePrefix  CookieMode = "PREFIX"  // the value of the member's cookie is preceded by it, and comes back without
	CookieRewrite CookieMode = "REWRITE" // the value of the member's cookie is replaced
)

// CookiePersistence ties a client to a member by a cookie, as LbCookiePersistenceProfile does.
type CookiePersistence struct {
	Name string
	Mode CookieMode // "": INSERT
	// Fallback: a client whose member cannot serve gets another; else its request is rejected with 503.
	Fallback bool
	Garble   bool // the cookie is encrypted, with a key that lives as long as the Plane

	// Of mode INSERT.
	Domain, Path     string
	HTTPOnly, Secure bool
	MaxAge           time.Duration // that browsers keep it; 0: as long as they run
	MaxIdle          time.Duration // since the last request for which it counts; 0: no limit
	MaxLife          time.Duration // since it was first set for which it counts; 0: no limit
}

// Phase in which a rule applies.
type Phase string

// Phases. In all but HTTP_FORWARDING all rules that match are followed; there the first one alone.
const (
	PhaseAccess          Phase = "HTTP_ACCESS"
	PhaseRequestRewrite  Phase = "HTTP_REQUEST_REWRITE"
	PhaseForwarding      Phase = "HTTP_FORWARDING"
	PhaseResponseRewrite Phase = "HTTP_RESPONSE_REWRITE"
)

// Rule is an LbRule.
type Rule struct {
	Name       string // for messages
	Phase      Phase
	MatchAny   bool // one condition is enough; else all must hold. Without conditions it always matches
	Conditions []Condition
	Actions    []Action
}

// ConditionType is what a condition looks at: NSX's names without the "Lb...Condition" around them.
type ConditionType string

// Condition types.
const (
	IfMethod         ConditionType = "HttpRequestMethod"
	IfURI            ConditionType = "HttpRequestUri"          // the path
	IfURIArguments   ConditionType = "HttpRequestUriArguments" // the query
	IfVersion        ConditionType = "HttpRequestVersion"      // Value is HTTP_VERSION_1_0 or _1_1
	IfHeader         ConditionType = "HttpRequestHeader"
	IfCookie         ConditionType = "HttpRequestCookie"
	IfBody           ConditionType = "HttpRequestBody" // the first 64 KiB
	IfTCP            ConditionType = "TcpHeader"       // the client's port
	IfIP             ConditionType = "IpHeader"        // the client's address
	IfVariable       ConditionType = "Variable"
	IfSSL            ConditionType = "HttpSsl"
	IfSNI            ConditionType = "SslSni"
	IfResponseHeader ConditionType = "HttpResponseHeader" // in phase HTTP_RESPONSE_REWRITE
)

// Condition of a rule.
type Condition struct {
	Type    ConditionType
	Inverse bool
	Name    string // of the header, cookie or variable
	Value   string
	Match   MatchType
	// IgnoreCase of the value.
	IgnoreCase bool
	Prefixes   []netip.Prefix // of IfIP
	Ports      [2]uint16      // of IfTCP: first and last
	Protocol   string         // of IfSSL: TLS_V1_2 and so on; "": any
	Cipher     string         // of IfSSL; "": any
	Reused     *bool          // of IfSSL: whether the session is resumed; nil: either
}

// MatchType is how a condition compares texts.
type MatchType string

// Match types. The empty one is REGEX: RE2, which finds itself anywhere in the text and whose named groups become
// variables.
const (
	StartsWith MatchType = "STARTS_WITH"
	EndsWith   MatchType = "ENDS_WITH"
	Equals     MatchType = "EQUALS"
	Contains   MatchType = "CONTAINS"
	Regex      MatchType = "REGEX"
)

// ActionType is what an action does: NSX's names without the "Lb...Action" around them.
type ActionType string

// Action types.
const (
	SelectPool            ActionType = "SelectPool"
	Reject                ActionType = "HttpReject"   // Status, Value is the body
	Redirect              ActionType = "HttpRedirect" // Status, Value is the URL
	RewriteURI            ActionType = "HttpRequestUriRewrite"
	RewriteRequestHeader  ActionType = "HttpRequestHeaderRewrite"
	DeleteRequestHeader   ActionType = "HttpRequestHeaderDelete"
	RewriteResponseHeader ActionType = "HttpResponseHeaderRewrite"
	DeleteResponseHeader  ActionType = "HttpResponseHeaderDelete"
	AssignVariable        ActionType = "VariableAssignment"
	PersistByVariable     ActionType = "VariablePersistenceOn"
	LearnByVariable       ActionType = "VariablePersistenceLearn"
	DropConnection        ActionType = "ConnectionDrop"
)

// Action of a rule. Its texts, but for names, may hold variables: $name, those of NSX beginning with an underscore.
type Action struct {
	Type  ActionType
	Name  string // of the header or variable
	Value string
	// Arguments of RewriteURI; nil: they stay.
	Arguments *string
	Status    int
	Pool      *Pool // of SelectPool
	// Persistence of the actions by variable: the table, which must have a name (Shared).
	Persistence *Persistence
}
