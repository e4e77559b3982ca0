//go:build !linux && !darwin

package remotecontrol

import "syscall"

// lowWater is for systems that do not have the option.
func lowWater(string, string, syscall.RawConn) error { return nil }
