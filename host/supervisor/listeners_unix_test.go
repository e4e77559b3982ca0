//go:build unix

package supervisor

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// bindAll binds the addresses, in their order.
func bindAll(ctx context.Context, addresses []string) (*Listeners, error) {
	ls := NewListeners(addresses, nil)
	return ls, ls.Bind(ctx)
}

func TestBind(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "s")
	ls, err := bindAll(t.Context(), []string{"ws://127.0.0.1:0", "unix://" + path})
	if err != nil {
		t.Fatal(err)
	}
	urls := ls.URLs()
	if len(urls) != 2 || strings.HasSuffix(urls[0], ":0") || urls[1] != "unix://"+path {
		t.Errorf("bound %v", urls)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("socket %v, %v; want mode 0600", info.Mode(), err)
	}
	_, err = bindAll(t.Context(), []string{urls[0]})
	if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("the port is in use by %s (pid %d)", filepath.Base(os.Args[0])[:min(15, len(filepath.Base(os.Args[0])))], os.Getpid())) {
		t.Errorf("binding it again: %v", err)
	}
	if _, err = bindAll(t.Context(), []string{"unix://" + path}); err == nil || !strings.Contains(err.Error(), "socket is already in use at "+path) {
		t.Errorf("binding the socket again: %v", err)
	}
	files, err := ls.files()
	if err != nil || len(files) != 2 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	closeAll(files)
	if err := ls.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("the socket's file is still there: %v", err)
	}
}

func TestBindReplacesTheSocketOfADeadProcess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	_ = l.Close()
	ls, err := bindAll(t.Context(), []string{"unix://" + path})
	if err != nil {
		t.Fatal(err)
	}
	_ = ls.Close()
}

func TestBindRefuses(t *testing.T) {
	dir := t.TempDir()
	plain := filepath.Join(dir, "file")
	if err := os.WriteFile(plain, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for address, want := range map[string]string{
		"unix://" + plain:         "socket path exists and is not a socket: " + plain,
		"unix://" + dir + "/no/s": "create it first",
		"unix://" + plain + "/s":  "socket directory path exists and is not a directory: " + plain,
		"tcp://127.0.0.1:1":       "want ws://HOST:PORT, wss://HOST:PORT or unix:///PATH",
		"ws://127.0.0.1:99999":    "invalid port",
	} {
		if ls, err := bindAll(t.Context(), []string{"ws://127.0.0.1:0", address}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, %v; want %q", address, ls.URLs(), err, want)
		}
	}
}
