// Command faulty is a plugin with one deliberate defect. Its file name selects
// which: transport-hangs-in-start hangs in Start. What each one must look like
// from outside is in the table of tests/e2e/faulty_test.go.
//
// A defect that the SDK would not let its author have is made with the link
// itself ([raw]), as a plugin in another language, or a hostile one, could.
package main

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

func main() {
	name := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(os.Args[0]), "transport-"), ".exe")
	defects := map[string]func() int{}
	for _, group := range []map[string]func() int{inTheHandshake(), inItsProcess(), inItsCalls(), inItsStreams(), inItsEvents(), inItsQuestions(), inItsReach()} {
		maps.Copy(defects, group)
	}
	defect, ok := defects[name]
	if !ok {
		fmt.Fprintf(os.Stderr, "there is no defect %q; there are %s\n", name, strings.Join(slices.Sorted(maps.Keys(defects)), ", "))
		os.Exit(2)
	}
	os.Exit(defect())
}

// forever is what a defect does that never ends by itself: not even with the
// host, whose business it is that it ends.
func forever() { select {} }
