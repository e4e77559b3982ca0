//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"strings"
)

// Methods of the application.
const (
	methodAsk  = "ask"  // a request, answered with a reply
	methodNote = "note" // the same as a notification: it is only counted
	methodTick = "tick" // a notification of the application to everybody
)

// A statement is the params of what a peer says.
type statement struct {
	From string `json:"from"` // the conversation
	N    uint64 `json:"n"`    // from 1, requests and notes together
	Pad  string `json:"pad"`
}

// A reply is the application's answer: the statement, and what the process that
// answers has seen of this conversation.
type reply struct {
	statement
	PID      int    `json:"pid"`
	First    uint64 `json:"first"`              // number of the first statement that it got
	Got      uint64 `json:"got"`                // how many it got, with this one
	Disorder string `json:"disorder,omitempty"` // what came in the wrong order, or twice
}

// A tick is the params of the application's own notifications.
type tick struct {
	PID int    `json:"pid"`
	N   uint64 `json:"n"` // from 1
}

// An incoming is any message that a peer gets, or the application.
type incoming struct {
	ID     json.RawMessage `json:"id"`
	Method string          `json:"method"`
	Params json.RawMessage `json:"params"`
	Result json.RawMessage `json:"result"`
	Error  *struct {
		Code    int    `json:"code"`
		Message string `json:"message"`
	} `json:"error"`
}

// pad is what fills the nth statement of a conversation: an answer that carries
// another one's, or part of one, is seen.
func pad(from string, n uint64, size int) string {
	unit := fmt.Sprintf("%s.%d.", from, n)
	return strings.Repeat(unit, size/len(unit)+1)[:size]
}
