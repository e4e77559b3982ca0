// Package rpc is both halves of the link between the host and a plugin
// process: the go-plugin glue, the two streams, the codec and the errors that
// keep their identity on the way.
//
// The host holds a [Link], the plugin a [Server]. Both give what arrives to an
// interface whose methods are called from the link's one receive loop and must
// not block, and both queue what they send without waiting; only [Server] has
// waiting forms, for goroutines that belong to one connection.
package rpc
