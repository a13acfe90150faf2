// Package chaos ends the controller's process in every way, at the worst moments, in a lab with a real API server, and
// looks at what NSX has afterwards.
package chaos
