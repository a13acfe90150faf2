// Package ipam decides which floating IP a Service gets: from which of its class's IP pools, and which address in it.
//
// It is pure. It allocates nothing, keeps nothing and asks nobody but the function that tells a free address.
package ipam
