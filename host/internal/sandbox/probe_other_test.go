//go:build linux && !amd64

package sandbox

func callAsI386() {}

const hasI386 = false
