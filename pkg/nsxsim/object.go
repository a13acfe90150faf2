package nsxsim

import (
	"encoding/json"
	"fmt"
)

// Object is a document as tests see it: decoded JSON. It is a copy; changing it
// changes nothing in the simulator.
type Object map[string]any

// ID is the object's id.
func (o Object) ID() string { return o.String("id") }

// Revision is the object's _revision.
func (o Object) Revision() int {
	n, _ := o["_revision"].(float64)
	return int(n)
}

// String gives a member that is a string, else "".
func (o Object) String(name string) string {
	s, _ := o[name].(string)
	return s
}

// Strings gives a member that is a list of strings, else nil.
func (o Object) Strings(name string) []string {
	var list []string
	values, _ := o[name].([]any)
	for _, v := range values {
		if s, ok := v.(string); ok {
			list = append(list, s)
		}
	}
	return list
}

// Tags gives the object's tags: the tag by its scope.
func (o Object) Tags() map[string]string {
	tags := map[string]string{}
	values, _ := o["tags"].([]any)
	for _, v := range values {
		if t, ok := v.(map[string]any); ok {
			tags[Object(t).String("scope")] = Object(t).String("tag")
		}
	}
	return tags
}

func decodeObject(raw json.RawMessage) Object {
	var o Object
	if err := json.Unmarshal(raw, &o); err != nil {
		panic(fmt.Sprintf("nsxsim: a stored document does not decode: %v", err))
	}
	return o
}
