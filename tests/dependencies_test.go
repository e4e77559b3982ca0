package tests

import (
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestDependenciesAreExplained compares the modules that our packages import
// with the list in docs/dependencies.md: one that nobody explains fails, and so
// does an explanation of one that nobody imports.
func TestDependenciesAreExplained(t *testing.T) {
	page, err := os.ReadFile("../docs/dependencies.md")
	if err != nil {
		t.Fatal(err)
	}
	var explained []string
	for _, m := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\| \\S").FindAllStringSubmatch(string(page), -1) {
		explained = append(explained, m[1])
	}
	imported := importedModules(t)
	for _, m := range imported {
		if !slices.Contains(explained, m) {
			t.Errorf("docs/dependencies.md does not say why we import %s", m)
		}
	}
	for _, m := range explained {
		if !slices.Contains(imported, m) {
			t.Errorf("docs/dependencies.md explains %s, which no package imports", m)
		}
	}
}

// importedModules lists the modules, other than ours, whose packages ours
// import on any system, tests included.
func importedModules(t *testing.T) []string {
	t.Helper()
	var packages []string
	for _, system := range []string{"linux", "darwin", "windows"} {
		for _, p := range listPackages(t, system) {
			for _, imports := range [][]string{p.Imports, p.TestImports, p.XTestImports} {
				packages = append(packages, imports...)
			}
		}
	}
	packages = slices.DeleteFunc(packages, func(path string) bool {
		first, _, _ := strings.Cut(path, "/")
		return !strings.Contains(first, ".") || strings.HasPrefix(path, module) || path == "C"
	})
	slices.Sort(packages)
	// -e and -find: a package that has no files on this system has a module too.
	cmd := exec.CommandContext(t.Context(), "go", append([]string{"list", "-e", "-find", "-f", "{{with .Module}}{{.Path}}{{end}}"},
		slices.Compact(packages)...)...)
	cmd.Dir = ".."
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("running go list: %v", err)
	}
	modules := strings.Fields(string(out))
	slices.Sort(modules)
	return slices.Compact(modules)
}
