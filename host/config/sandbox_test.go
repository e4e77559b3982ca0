package config

import (
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"testing"
)

func TestSandbox(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("nothing is confined there, and paths are written in another way")
	}
	yes := true
	for _, tt := range []struct {
		name, keys string
		want       Sandbox
	}{
		{"default", ``, Sandbox{}},
		{"off", `sandbox = "off"`, Sandbox{Off: true}},
		{"exceptions", `sandbox = { read = ["/srv/data/", "~/x"], write = ["/var/spool"], network = true, processes = true, memory = "512MiB", files = 4096 }`,
			Sandbox{Read: []string{"/srv/data", expandHome("~/x")}, Write: []string{"/var/spool"}, Network: &yes, Processes: true, Memory: 512 << 20, Files: 4096}},
		{"decimal", `sandbox = { memory = "2 GB" }`, Sandbox{Memory: 2_000_000_000}},
		{"none", `sandbox = {}`, Sandbox{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := transportOf(t, tt.keys).Sandbox; !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
		})
	}
}

func TestMistakesInSandbox(t *testing.T) {
	const all = "allowed are files, memory, network, processes, read, write"
	for _, tt := range []struct {
		name, keys, want string
	}{
		{"another word", `sandbox = "of"`, `host.hcl:3:11: sandbox is "of"; write "off" for none, or { … } for exceptions; leave it out for the default`},
		{"another kind", `sandbox = true`, `host.hcl:3:11: sandbox is a bool; write "off" for none, or { … } for exceptions; leave it out for the default`},
		{"keys", `sandbox = { reed = ["/x"], memory = 5 }`, `host.hcl:3:13: unsupported key "reed" in sandbox; did you mean "read"? ` + all + `
host.hcl:3:37: memory is the number 5, want a string`},
		{"all at once", "sandbox = {\n  read = [\"data\"]\n  write = \"/x\"\n  network = \"yes\"\n  memory = \"1 apple\"\n  files = 3\n}",
			`host.hcl:4:11: read has the path "data", which depends on where the host is started; write it from / or ~/ on
host.hcl:5:11: write is a string, want a list of strings
host.hcl:6:13: network is a string, want a bool
host.hcl:7:12: memory is "1 apple", want a size; write it as "512MiB" or "2GiB"
host.hcl:8:11: files is 3; want at least 32`},
		{"too little", `sandbox = { memory = "64MiB" }`, `host.hcl:3:22: memory is "64MiB"; want at least 128 MiB: the runtime of a plugin in Go takes that`},
		{"too much", `sandbox = { memory = "999999999TiB" }`, `host.hcl:3:22: memory is "999999999TiB", want a size; write it as "512MiB" or "2GiB"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Parse("host.hcl", []byte("application { builtin = \"echo\" }\ntransport \"pigeon\" {\n"+tt.keys+"\n}\n"))
			if err == nil || err.Error() != tt.want {
				t.Errorf("got\n%v\nwant\n%s", err, tt.want)
			}
		})
	}
}

// TestPaths are found wherever they stand in a block.
func TestPaths(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("paths are written in another way there")
	}
	here, err := filepath.Abs(".")
	if err != nil {
		t.Fatal(err)
	}
	got := transportOf(t, `listen = ["unix:///run/x.sock"]
env     = { SSL_CERT_FILE = "/srv/ca.pem", WORD = "plain" }
names   = ["/a/b", "c"]
loft    = { key_file = "keys/k.pem", deep = { path = "~/y" } }
breed   = "homing"
page    = "https://example.com/x"
sandbox = { read = ["/not/named"] }`).Paths()
	want := []string{"/a/b", "/srv/ca.pem", filepath.Join(here, "keys/k.pem"), expandHome("~/y")}
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
