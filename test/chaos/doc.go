// Package chaos lets everything fail: every call to NSX of every operation in every way, in worlds of fake time (package
// world), and the controller's process in every way, at the worst moments, in a lab with a real API server. It looks at
// what NSX has afterwards, and at what it had in between; docs/reliability.md says what is promised by that.
//
// By default a sample is played; `make chaos` plays everything, by package run.
package chaos
