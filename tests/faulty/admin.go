package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/transporthost/transporthost/host/admin"
	"github.com/transporthost/transporthost/shared/transport"
)

// inItsReach are defects of a process that wants from the host what only people
// may have of it.
func inItsReach() map[string]func() int {
	serving := func(serve func(r *raw)) func() int {
		return func() int { return (&raw{serve: serve}).main() }
	}
	asking := func(r *raw) { r.tellRefusals(askAdmin) }
	return map[string]func() int{
		"asks-the-admin-socket": serving(asking),
		"asks-the-admin-socket-in-disguise": func() int {
			disguise()
			return serving(asking)()
		},
		"has-the-admin-socket-asked": func() int {
			if len(os.Args) > 1 { // the child
				disguise()
				if err := askAdmin(os.Args[1]); err != nil {
					fmt.Print(err)
				}
				return 0
			}
			return serving(func(r *raw) {
				r.tellRefusals(func(dir string) error {
					said, err := exec.Command(os.Args[0], dir).Output()
					if err == nil && len(said) > 0 {
						err = fmt.Errorf("%s", said)
					}
					return err
				})
			})()
		},
		"floods-the-admin-socket": serving(func(*raw) {
			open := make([]net.Conn, 100)
			for i := 0; ; i++ {
				c, err := net.Dial("unix", filepath.Join(hostDir(), admin.SocketName))
				if err != nil {
					continue
				}
				// Every other one never ends its question.
				_, _ = fmt.Fprint(c, "POST /v1/plugins/websocket/restart HTTP/1.1\r\nHost: host\r\n", strings.Repeat("\r\n", i%2))
				at := &open[i%len(open)]
				if *at != nil {
					_ = (*at).Close()
				}
				*at = c
			}
		}),
	}
}

// hostDir is the directory of the host's sockets, which is that of a plugin's
// own directory.
func hostDir() string { return filepath.Dir(os.Getenv("TMPDIR")) }

// askAdmin asks for what would hurt others.
func askAdmin(dir string) error {
	return admin.NewClient(dir).RestartPlugin(background(), "websocket")
}

// tellRefusals asks, and says in its status what came of it.
func (r *raw) tellRefusals(ask func(dir string) error) {
	cause := "it was done"
	if err := ask(hostDir()); err != nil {
		cause = "it was refused: " + err.Error()
	}
	r.server.ReportStatus(transport.Status{State: "greedy", Ready: true, Cause: cause})
}
