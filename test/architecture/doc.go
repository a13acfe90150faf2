// Package architecture holds the project's packages against the rules of docs/architecture.md: who may import whom, and
// that every package says what it is. And it holds the documents against the project: what they link to, name and quote is
// there.
package architecture
