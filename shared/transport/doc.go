// Package transport holds the vocabulary that hosts, plugins and the link
// between them share: ids, peers, close reasons, messages, limits and errors.
//
// It imports the standard library only, starts no goroutine and keeps no state.
package transport
