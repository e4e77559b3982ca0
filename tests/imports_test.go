package tests

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/transporthost/transporthost/"

// A tree is a part of the module with one rule for what its packages import
// from the rest of the module. A package belongs to the longest tree that its
// path begins with; inside one tree everything may import everything.
type tree struct {
	path    string
	imports []string // trees that the packages may import
	tests   []string // trees that only the tests beside them may import
}

// trees is the contract of docs/contributing.md. What is not here does not
// belong into the repository.
var trees = []tree{
	{path: "shared/transport"},
	{path: "shared/transportpb"},
	{path: "shared/rpc", imports: []string{"shared/transport", "shared/transportpb"}},
	{path: "plugin-sdk", imports: []string{"shared/transport", "shared/rpc"}},
	// No privileges: what they need, an outsider gets.
	{path: "plugins/stdio", imports: []string{"plugin-sdk"}},
	{path: "plugins/websocket", imports: []string{"plugin-sdk"}},
	{path: "plugins/remotecontrol", imports: []string{"plugin-sdk"}},

	// The rooms of the host, from the innermost outwards. A room imports the
	// rooms that its contract names, and never the host.
	{path: "host/internal"},
	{path: "host/catalog", imports: []string{"host/internal", "shared/transport"}},
	{path: "host/state", imports: []string{"host/internal", "shared/transport"}},
	{path: "host/credentials", imports: []string{"host/internal", "shared/transport"}},
	{path: "host/config", imports: []string{"host/application", "host/internal", "shared/transport"}},
	{path: "host/application", imports: []string{"host/internal", "shared/transport"}},
	{path: "host/router", imports: []string{"host/application", "host/internal", "shared/transport", "shared/rpc"},
		tests: []string{"plugin-sdk"}},
	{path: "host/supervisor", imports: []string{"host/catalog", "host/state", "host/internal", "shared/transport", "shared/rpc"},
		tests: []string{"plugin-sdk"}},
	{path: "host/admin", imports: []string{"host/supervisor", "host/router", "host/credentials", "host/internal", "shared/transport"}},
	{path: "host", imports: append(rooms(), "shared/transport", "shared/rpc"),
		tests: []string{"plugin-sdk", "plugins/stdio", "plugins/websocket", "plugins/remotecontrol"}},
	{path: "cmd/host", imports: append(rooms(), "host"), tests: []string{"plugin-sdk"}},

	{path: "examples", imports: []string{"plugin-sdk", "host", "host/application"}},
	{path: "tests", imports: append(rooms(), "host", "plugin-sdk", "plugins/stdio", "plugins/websocket",
		"plugins/remotecontrol", "shared/rpc", "shared/transport", "examples")},
	{path: "tools"},
}

// rooms are the sub-packages of the host.
func rooms() []string {
	return []string{"host/internal", "host/catalog", "host/state", "host/credentials", "host/config",
		"host/application", "host/router", "host/supervisor", "host/admin"}
}

// standardOnly are trees that import nothing but the standard library and what
// their rule names.
var standardOnly = []string{"shared/transport", "host/internal/backoff", "tools"}

// A goPackage is what go list says about one package.
type goPackage struct {
	ImportPath   string
	Imports      []string
	TestImports  []string
	XTestImports []string
}

func TestImportDirection(t *testing.T) {
	for _, system := range []string{"linux", "darwin", "windows"} {
		t.Run(system, func(t *testing.T) {
			packages := listPackages(t, system)
			if len(packages) < 5 {
				t.Fatalf("go list found %d packages; the test sees nothing", len(packages))
			}
			for _, complaint := range forbiddenImports(packages) {
				t.Error(complaint)
			}
		})
	}
}

// TestImportDirectionFindsViolations seeds one violation of each kind.
func TestImportDirectionFindsViolations(t *testing.T) {
	tests := []struct {
		name    string
		pkg     goPackage
		wantSay string // "" if the imports are allowed
	}{
		{"a plugin reaches past the SDK", goPackage{ImportPath: module + "plugins/websocket", Imports: []string{module + "shared/rpc"}},
			"plugins/websocket imports shared/rpc"},
		{"a plugin in its main", goPackage{ImportPath: module + "plugins/stdio/cmd/transport-stdio", Imports: []string{module + "plugins/stdio", module + "host"}},
			"plugins/stdio/cmd/transport-stdio imports host"},
		{"a plugin uses another", goPackage{ImportPath: module + "plugins/stdio", Imports: []string{module + "plugins/websocket"}},
			"plugins/stdio imports plugins/websocket"},
		{"generated code has one importer", goPackage{ImportPath: module + "host/router", Imports: []string{module + "shared/transportpb"}},
			"host/router imports shared/transportpb"},
		{"a room imports the house", goPackage{ImportPath: module + "host/router", Imports: []string{module + "host"}},
			"host/router imports host"},
		{"a test reaches where its package may not", goPackage{ImportPath: module + "shared/rpc", TestImports: []string{module + "plugin-sdk"}},
			"shared/rpc (tests) imports plugin-sdk"},
		{"an external test too", goPackage{ImportPath: module + "host/application", XTestImports: []string{module + "host/router"}},
			"host/application (tests) imports host/router"},
		{"the vocabulary takes a dependency", goPackage{ImportPath: module + "shared/transport", Imports: []string{"bytes", "google.golang.org/grpc"}},
			"shared/transport imports google.golang.org/grpc"},
		{"a package outside of every tree", goPackage{ImportPath: module + "pkg/utils"}, "pkg/utils belongs to no tree"},
		{"a tree whose name only begins alike", goPackage{ImportPath: module + "hostile", Imports: []string{"os"}}, "hostile belongs to no tree"},
		{"allowed: inward", goPackage{ImportPath: module + "plugin-sdk", Imports: []string{module + "shared/rpc", "context", "google.golang.org/grpc"}}, ""},
		{"allowed: itself, and a test of its own", goPackage{ImportPath: module + "plugins/stdio/cmd/transport-stdio",
			Imports: []string{module + "plugin-sdk", module + "plugins/stdio"}, XTestImports: []string{module + "plugin-sdk/conformance"}}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := strings.Join(forbiddenImports([]goPackage{tt.pkg}), "\n")
			if tt.wantSay == "" && got != "" || !strings.Contains(got, tt.wantSay) {
				t.Errorf("got %q, want %q", got, tt.wantSay)
			}
		})
	}
}

// forbiddenImports says of each import that no rule allows who imports whom.
func forbiddenImports(packages []goPackage) []string {
	var complaints []string
	for _, p := range packages {
		path := strings.TrimPrefix(p.ImportPath, module)
		from, ok := treeOf(path)
		if !ok {
			complaints = append(complaints, fmt.Sprintf("%s belongs to no tree: see the list of trees in tests/imports_test.go", path))
			continue
		}
		check := func(who string, imports, allowed []string) {
			for _, imported := range imports {
				if imported != "C" && !mayImport(from, path, imported, allowed) {
					complaints = append(complaints, fmt.Sprintf("%s imports %s, which docs/contributing.md does not allow",
						who, strings.TrimPrefix(imported, module)))
				}
			}
		}
		check(path, p.Imports, from.imports)
		inTests := append(slices.Clone(from.imports), from.tests...)
		check(path+" (tests)", ours(p.TestImports), inTests)
		check(path+" (tests)", ours(p.XTestImports), inTests)
	}
	return complaints
}

func mayImport(from tree, path, imported string, allowed []string) bool {
	ourPath, isOurs := strings.CutPrefix(imported, module)
	if !isOurs {
		first, _, _ := strings.Cut(imported, "/")
		standard := !strings.Contains(first, ".")
		return standard || !slices.ContainsFunc(standardOnly, func(t string) bool { return within(path, t) })
	}
	to, ok := treeOf(ourPath)
	return ok && (to.path == from.path || slices.Contains(allowed, to.path))
}

// treeOf finds the tree of a package.
func treeOf(path string) (tree, bool) {
	var best tree
	for _, t := range trees {
		if within(path, t.path) && len(t.path) > len(best.path) {
			best = t
		}
	}
	// The host has no packages besides its rooms: a new room needs a rule.
	if best.path == "host" && path != "host" {
		return tree{}, false
	}
	return best, best.path != ""
}

func within(path, tree string) bool { return path == tree || strings.HasPrefix(path, tree+"/") }

func ours(imports []string) []string {
	return slices.DeleteFunc(slices.Clone(imports), func(i string) bool { return !strings.HasPrefix(i, module) })
}

// listPackages asks go list for all packages of the module, as they are
// compiled on system.
func listPackages(t *testing.T, system string) []goPackage {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-json=ImportPath,Imports,TestImports,XTestImports", "./...")
	cmd.Dir = ".."
	cmd.Env = append(os.Environ(), "GOOS="+system, "CGO_ENABLED=0")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("running go list: %v", err)
	}
	var packages []goPackage
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p goPackage
		err := d.Decode(&p)
		if errors.Is(err, io.EOF) {
			return packages
		}
		if err != nil {
			t.Fatalf("reading the output of go list: %v", err)
		}
		packages = append(packages, p)
	}
}
