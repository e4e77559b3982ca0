package tests

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// maxLines is how long a Go file may be: one noun fits, two do not.
const maxLines = 450

// ownContexts are the files outside of main and tests that may make a context
// of their own, and why.
var ownContexts = map[string]string{
	"plugin-sdk/main.go":             "holds the main of every plugin",
	"plugin-sdk/inprocess.go":        "its Close has no context to inherit, and a fixed grace",
	"host/internal/keeper/keeper.go": "holds the main of keepers",
	"host/supervisor/launch.go":      "go-plugin's Kill wants one and does not wait",

	"plugins/remotecontrol/clients.go": "virtual clients outlive every relay link that is served; their close ends it",
}

// ownInits are the files outside of tests that may have an init function, and
// why.
var ownInits = map[string]string{
	"host/internal/sandbox/shim_linux.go": "a process that confines itself must not run the main of the program that embeds the host",
	"host/internal/keeper/role.go":        "a process that outlives the host must not run the main of the program that embeds it",
}

// leftovers must not be committed. The marker words are spelled so that this
// file does not contain them.
var leftovers = []struct {
	what    string
	pattern *regexp.Regexp
}{
	{"a marker of unfinished work", regexp.MustCompile(`\b(TO` + `DO|FIX` + `ME|XX` + `X|HA` + `CK)\b`)},
	{"a folder of one machine", regexp.MustCompile(`(/home/|/Users/|[A-Z]:\\+Users\\+)[A-Za-z][\w.-]*[/\\]`)},
	{"a merge conflict", regexp.MustCompile(`(?m)^(<{7} |>{7} |={7}$)`)},
	{"a private key", regexp.MustCompile(`-----BEGIN [A-Z ]*PRIVATE KEY-----\n`)},
}

func TestRepositoryHygiene(t *testing.T) {
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	places := []string{root + string(filepath.Separator)}
	if home, err := os.UserHomeDir(); err == nil && len(home) > 1 {
		places = append(places, home+string(filepath.Separator))
	}
	files := trackedFiles(t)
	if len(files) < 20 {
		t.Fatalf("git knows %d files; the test sees nothing", len(files))
	}
	for _, name := range files {
		content, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			t.Errorf("reading a file that git knows: %v", err)
			continue
		}
		for _, complaint := range untidiness(name, content, places) {
			t.Error(complaint)
		}
	}
}

// TestRepositoryHygieneFindsViolations seeds one violation of each kind.
func TestRepositoryHygieneFindsViolations(t *testing.T) {
	tests := []struct {
		name, file, content string
		wantSay             string // "" if the content is tidy
	}{
		{"marker", "a.md", "later: TO" + "DO", "a.md:1: a marker of unfinished work"},
		{"home of a person", "a.md", "\nsee /home/" + "jane/x", "a.md:2: a folder of one machine"},
		{"this clone", "a.md", "\n\nin /clone/of/mine/bin", "a.md:3: the path of this clone or home"},
		{"long file", "a.go", "package a\n" + strings.Repeat("\n", maxLines), "a.go: 451 lines"},
		{"long test", "a_test.go", "package a\n" + strings.Repeat("\n", maxLines), ""},
		{"init", "host/a.go", "package a\n\nfunc init() {}\n", "host/a.go:3: an init function"},
		{"method named init", "host/a.go", "package a\n\ntype t int\n\nfunc (t) init() {}\n", ""},
		{"own context", "host/a.go", "package a\n\nimport \"context\"\n\nvar _ = context.Background()\n", "host/a.go:5: context.Background"},
		{"own context in main", "tools/a.go", "package main\n\nimport \"context\"\n\nvar _ = context.Background()\n", ""},
		{"printing", "host/a.go", "package a\n\nimport \"fmt\"\n\nfunc f() { fmt.Println() }\n", "host/a.go:5: fmt.Println"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := strings.Join(untidiness(tt.file, []byte(tt.content), []string{"/clone/of/mine/"}), "\n")
			if tt.wantSay == "" && got != "" || !strings.Contains(got, tt.wantSay) {
				t.Errorf("got %q, want %q", got, tt.wantSay)
			}
		})
	}
}

// untidiness lists what is wrong with one file of the repository. places are
// paths of this machine.
func untidiness(name string, content []byte, places []string) []string {
	if bytes.IndexByte(content, 0) >= 0 {
		return nil // binary
	}
	var complaints []string
	complain := func(at int, what string) {
		complaints = append(complaints, fmt.Sprintf("%s:%d: %s", name, 1+bytes.Count(content[:at], []byte("\n")), what))
	}
	if name != "LICENSE" {
		for _, l := range leftovers {
			if at := l.pattern.FindIndex(content); at != nil {
				complain(at[0], l.what)
			}
		}
	}
	for _, place := range places {
		if at := bytes.Index(content, []byte(place)); at >= 0 {
			complain(at, "the path of this clone or home")
		}
	}
	if !strings.HasSuffix(name, ".go") {
		return complaints
	}
	generated := bytes.Contains(content, []byte("\n// Code generated "))
	if strings.HasSuffix(name, "_test.go") || generated {
		return complaints
	}
	if lines := bytes.Count(content, []byte("\n")); lines > maxLines {
		complaints = append(complaints, fmt.Sprintf("%s: %d lines, at most %d: it holds more than one noun", name, lines, maxLines))
	}
	return append(complaints, unruly(name, content)...)
}

// unruly lists what breaks the rules of the code in one file: init functions;
// contexts and prints to stdout outside of programs and test helpers.
func unruly(name string, content []byte) []string {
	positions := token.NewFileSet()
	file, err := parser.ParseFile(positions, name, content, parser.SkipObjectResolution)
	if err != nil {
		return []string{err.Error()}
	}
	program := file.Name.Name == "main" || strings.HasSuffix(file.Name.Name, "test") || strings.HasPrefix(name, "tests/")
	var complaints []string
	complain := func(n ast.Node, what string) {
		complaints = append(complaints, fmt.Sprintf("%s:%d: %s", name, positions.Position(n.Pos()).Line, what))
	}
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncDecl:
			if n.Recv == nil && n.Name.Name == "init" && ownInits[name] == "" {
				complain(n, "an init function: pass in what exists")
			}
		case *ast.SelectorExpr:
			pkg, ok := n.X.(*ast.Ident)
			if !ok || program {
				break
			}
			switch what := pkg.Name + "." + n.Sel.Name; what {
			case "context.Background", "context.TO" + "DO":
				if ownContexts[name] != "" {
					break
				}
				complain(n, what+" outside of main and tests: take a context as argument")
			case "fmt.Print", "fmt.Printf", "fmt.Println":
				complain(n, what+": stdout carries protocol only")
			}
		}
		return true
	})
	return complaints
}

// trackedFiles lists the files that git has, and those that it would add.
func trackedFiles(t *testing.T) []string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--deduplicate")
	cmd.Dir = ".."
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("running git ls-files: %v", err)
	}
	var files []string
	for name := range strings.SplitSeq(strings.Trim(string(out), "\x00"), "\x00") {
		info, err := os.Stat(filepath.Join("..", name))
		if err == nil && info.Mode().IsRegular() {
			files = append(files, name)
		}
	}
	return files
}
