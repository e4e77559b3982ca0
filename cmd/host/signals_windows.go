package main

import "os"

func hangupSignals() []os.Signal { return nil }

func isHangup(os.Signal) bool { return false }

// A hangup is nothing that this system has.
type hangup struct{ ignored bool }

func newHangup() hangup { return hangup{} }

func (hangup) terminalGone() bool { return false }
