// Package random lets everything happen at once: two clusters and somebody else on one NSX, whose users, nodes, processes,
// configs and network do what they like, in worlds of fake time (package world). Each seed is a list of steps, which is the
// same every time. When an invariant breaks, the steps that it does not take are left out one after the other, and what
// remains is told, with the command that plays it again.
//
// By default a few seeds are played; `make chaos` plays a hundred.
package random
