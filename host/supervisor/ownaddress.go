package supervisor

import (
	"fmt"
	"net"
	"path/filepath"
)

// ownAddress says what is wrong with the address that a plugin names in its
// handshake: the host connects to the process that it has started, not to
// whatever that points at.
func ownAddress(network, address, dir string) error {
	switch network {
	case "unix":
		if filepath.Dir(address) == filepath.Clean(dir) {
			return nil
		}
	case "tcp":
		if host, _, err := net.SplitHostPort(address); err == nil && net.ParseIP(host).IsLoopback() {
			return nil
		}
	}
	return fmt.Errorf("its handshake names the address %s %q, which is not its own; want a socket in the directory of PLUGIN_UNIX_SOCKET_DIR, or a port of a loopback address",
		network, address)
}
