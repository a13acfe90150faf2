// Package nsx is the seam between the controller and NSX: the objects of a load balancer in the terms of its users
// (virtual servers, node pools, floating IPs), the intents that change them, the errors that NSX gives, and the
// Inventory of what a cluster owns.
//
// It does no I/O and imports no SDK. Backends (pkg/nsx/manager) turn intents into calls and keep the Inventory true;
// pkg/lb decides from it what should change.
package nsx
