//go:build !linux

package main

// disguise has nothing to take off here.
func disguise() {}
