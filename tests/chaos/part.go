//go:build linux

package main

// A part is something of the host that an action touches. The transports carry
// the names of their instances.
type part string

const (
	stdio         part = "stdio"
	websocket     part = "websocket"
	remotecontrol part = "remotecontrol"
	application   part = "application"
)

// transports are the parts that have a plugin, and peers.
var transports = [...]part{stdio, websocket, remotecontrol}
