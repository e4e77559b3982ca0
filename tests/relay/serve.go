package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/hashicorp/go-hclog"

	"github.com/transporthost/transporthost/tests/relay/backend"
)

func serve(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("relay serve", flag.ContinueOnError)
	flags.SetOutput(stderr)
	listen := flags.String("listen", defaultListen, "`address` to listen on; whoever reaches it can control the host")
	protocol := flags.Uint("protocol", 3, "wire to speak, 2 or 3")
	noToken := flags.Bool("no-token", false, "give no server tokens, as some backends of protocol 3 do")
	authFile := flags.String("auth-file", "auth.json", "`file` to write the credentials of a made-up account to")
	level := flags.String("log-level", "info", "trace, debug, info, warn or error")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil
		}
		return errUsage
	}
	if flags.NArg() > 0 || *protocol > 3 || hclog.LevelFromString(*level) == hclog.NoLevel {
		flags.Usage()
		return errUsage
	}
	path, err := filepath.Abs(*authFile)
	if err == nil {
		err = mayReplace(path)
	}
	if err != nil {
		return err
	}
	b, err := backend.New(backend.Options{Profile: backend.Profile(*protocol), NoServerToken: *noToken,
		Logger: hclog.New(&hclog.LoggerOptions{Output: stderr, Level: hclog.LevelFromString(*level), TimeFormat: "15:04:05.000"})})
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", *listen)
	if err != nil {
		return fmt.Errorf("listening: %w", err)
	}
	account, err := b.Account("")
	if err == nil {
		err = backend.WriteAuthFile(path, backend.AuthChatGPT, account)
	}
	if err != nil {
		return errors.Join(err, l.Close())
	}
	explain(stdout, l.Addr().String(), path, *protocol)
	return b.Serve(ctx, l)
}

// mayReplace refuses a file that no relay has written: it could be the login of
// a person.
func mayReplace(path string) error {
	content, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("reading the auth file: %w", err)
	case !bytes.Contains(content, []byte(`"account_id": "`+backend.MadeUpAccount)):
		return fmt.Errorf("%s is there and not of a relay; name another file by --auth-file", path)
	}
	return nil
}

// explain says what a person does next.
func explain(w io.Writer, address, authFile string, protocol uint) {
	key := ""
	if protocol != 3 {
		key = fmt.Sprintf("\n  protocol = %d", protocol)
	}
	fmt.Fprintf(w, strings.TrimLeft(`
relay: ready on http://%[1]s%[2]s, protocol %[5]d
relay: credentials of a made-up account are in %[3]s

Write this to relay.hcl, with your own application if you like:

application { builtin = "echo" }
credentials {
  file      = %[3]q
  token_url = "http://%[1]s%[4]s"
}
transport "remotecontrol" {
  url = "http://%[1]s%[2]s"%[6]s
}

Then, in a second terminal, start the host:

transporthost run --config relay.hcl

And control it from a third one, by lines of JSON-RPC:

go run ./tests/relay talk --url ws://%[1]s%[7]s --client phone

Any WebSocket client does as well: ws://%[1]s%[7]s?client=phone

`, "\n"), address, backend.BasePath, authFile, backend.TokenPath, protocol, key, backend.ControllerPath)
}
