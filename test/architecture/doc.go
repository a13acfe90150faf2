// Package architecture holds the project's packages against the rules of docs/architecture.md: who may import whom, and
// that every package says what it is.
package architecture
