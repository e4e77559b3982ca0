package tests

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"
)

// The commands in the documentation are run as they stand there, if their
// block says so behind the language:
//
//	```sh test            runs in the root of the clone and ends with status 0
//	```sh serve=TEXT      runs until it prints TEXT, then gets an interrupt, as
//	                      from a terminal, and ends with status 0
//
// A block ```output directly behind a test block is what the command prints,
// to stdout; a line of three dots stands for any lines. bin/ of the clone is on
// the PATH, and HOME and the state are empty folders. All other blocks are only
// read by people.
const (
	docDeadline = 2 * time.Minute
	fence       = "```"
)

// A block is one fenced block of a page.
type block struct {
	page string
	line int // of the opening fence
	info string
	text string
	want string // the output block behind it
	says bool   // there is one
}

func TestCommandsInDocs(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("the documentation speaks to a Unix shell")
	}
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	for _, page := range pages(t) {
		content, err := os.ReadFile(filepath.Join(root, page))
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range blocks(page, string(content)) {
			language, how, _ := strings.Cut(b.info, " ")
			if language != "sh" || how == "" {
				continue
			}
			t.Run(strings.ReplaceAll(page, "/", "_")+"_"+firstLine(b.text), func(t *testing.T) {
				if how == "test" {
					runBlock(t, root, b)
				} else if text, ok := strings.CutPrefix(how, "serve="); ok {
					serveBlock(t, root, b, text)
				} else {
					t.Fatalf("%s:%d: a sh block is marked %q, want test or serve=TEXT", page, b.line, how)
				}
			})
		}
	}
}

// TestLinksInDocs follows the links from page to page.
func TestLinksInDocs(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)\s]+)\)`)
	for _, page := range pages(t) {
		content, err := os.ReadFile(filepath.Join("..", page))
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range link.FindAllStringSubmatch(string(content), -1) {
			target, _, _ := strings.Cut(m[1], "#")
			if target == "" || strings.Contains(target, "://") || strings.HasPrefix(target, "mailto:") {
				continue
			}
			if _, err := os.Stat(filepath.Join("..", filepath.Dir(page), target)); err != nil {
				t.Errorf("%s links to %s: %v", page, m[1], err)
			}
		}
	}
}

func TestBlocks(t *testing.T) {
	page := "# P\n\n" + fence + "sh test\necho a\necho b\n" + fence + "\n\n" + fence + "output\na\n...\n" + fence +
		"\ntext\n" + fence + "output\nnobody's\n" + fence + "\n" + fence + "sh\nrm x\n" + fence + "\n"
	got := blocks("p.md", page)
	if len(got) != 2 {
		t.Fatalf("got %d blocks, want 2: %+v", len(got), got)
	}
	if b := got[0]; b.line != 3 || b.info != "sh test" || b.text != "echo a\necho b\n" || !b.says || b.want != "a\n...\n" {
		t.Errorf("first block: got %+v", b)
	}
	if b := got[1]; b.info != "sh" || b.says {
		t.Errorf("second block: got %+v", b)
	}
}

func TestMatchesOutput(t *testing.T) {
	tests := []struct {
		name, got, want string
		matches         bool
	}{
		{"equal", "a\nb\n", "a\nb\n", true},
		{"space at line ends", "a \nb", "a\nb\n", true},
		{"another line", "a\nc\n", "a\nb\n", false},
		{"dots for nothing", "a\nb\n", "a\n...\nb\n", true},
		{"dots for two lines", "a\n1\n2\nb\n", "a\n...\nb\n", true},
		{"dots at the end", "a\n1\n", "a\n...\n", true},
		{"more than wanted", "a\nb\n", "a\n", false},
		{"less than wanted", "a\n", "a\n...\nb\n", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := matchesOutput(tt.got, tt.want); got != tt.matches {
				t.Errorf("matchesOutput(%q, %q): got %v, want %v", tt.got, tt.want, got, tt.matches)
			}
		})
	}
}

func TestBlocksRun(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("the documentation speaks to a Unix shell")
	}
	runBlock(t, t.TempDir(), block{page: "p.md", text: "cd /\npwd\n", want: "/\n", says: true})
	serveBlock(t, t.TempDir(), block{page: "p.md", text: `sh -c 'trap "exit 0" INT; echo it is up; while :; do sleep 0.05; done'`}, "is up")
}

// pages lists the Markdown files of the documentation.
func pages(t *testing.T) []string {
	t.Helper()
	var found []string
	for _, name := range trackedFiles(t) {
		if dir := filepath.Dir(name); strings.HasSuffix(name, ".md") && (dir == "." || within(dir, "docs") || within(dir, "examples")) {
			found = append(found, name)
		}
	}
	if len(found) == 0 {
		t.Fatal("no page found; the test sees nothing")
	}
	return found
}

// blocks cuts the fenced blocks out of a page. An output block that follows
// another block, with nothing but empty lines between, belongs to that one.
func blocks(page, content string) []block {
	var all []block
	var open *block
	behind := false // only empty lines since the last block
	number := 0
	for line := range strings.Lines(content) {
		number++
		text := strings.TrimSpace(line)
		switch {
		case open == nil && strings.HasPrefix(text, fence):
			open = &block{page: page, line: number, info: strings.TrimSpace(strings.TrimPrefix(text, fence))}
		case open == nil:
			behind = behind && text == ""
		case text == fence:
			if open.info != "output" {
				all = append(all, *open)
			} else if behind && len(all) > 0 {
				all[len(all)-1].want, all[len(all)-1].says = open.text, true
			}
			open, behind = nil, open.info != "output"
		default:
			open.text += line
		}
	}
	return all
}

func runBlock(t *testing.T, root string, b block) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), docDeadline)
	defer cancel()
	var stdout, stderr bytes.Buffer
	cmd := shell(t, ctx, root, b.text)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s:%d: %v\n%s%s", b.page, b.line, err, stdout.String(), stderr.String())
	}
	if b.says && !matchesOutput(stdout.String(), b.want) {
		t.Errorf("%s:%d: got output\n%swant\n%s", b.page, b.line, stdout.String(), b.want)
	}
}

func serveBlock(t *testing.T, root string, b block, text string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), docDeadline)
	defer cancel()
	printed := &watched{text: []byte(text), seen: make(chan struct{})}
	cmd := shell(t, ctx, root, "exec "+b.text)
	cmd.Stdout, cmd.Stderr = printed, printed
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case <-printed.seen:
	case err := <-ended:
		t.Fatalf("%s:%d: it ended (%v) before it printed %q:\n%s", b.page, b.line, err, text, printed.String())
	}
	if err := interruptGroup(cmd); err != nil {
		t.Fatalf("interrupting: %v", err)
	}
	err := <-ended
	// "go run" answers every interrupt with status 1, and says which status the
	// program had if that was not 0.
	if strings.HasPrefix(b.text, "go run ") && !strings.Contains(printed.String(), "\nexit status ") {
		return
	}
	if err != nil {
		t.Errorf("%s:%d: after the interrupt: %v\n%s", b.page, b.line, err, printed.String())
	}
}

// shell prepares a script in the root of the clone. When ctx ends the whole
// process group is killed.
func shell(t *testing.T, ctx context.Context, root, script string) *exec.Cmd {
	t.Helper()
	home, err := os.MkdirTemp("", "doc-") // short: a path of a unix socket has 108 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(home) })
	cmd := exec.CommandContext(ctx, "sh", "-euc", script)
	cmd.Dir = root
	cmd.Env = append(os.Environ(),
		"PATH="+filepath.Join(root, "bin")+string(os.PathListSeparator)+os.Getenv("PATH"),
		"XDG_STATE_HOME="+filepath.Join(home, "state"), "XDG_CONFIG_HOME="+filepath.Join(home, "config"),
		"XDG_RUNTIME_DIR="+home)
	// A home of its own would send Go to an empty cache: say where it is.
	for _, name := range []string{"GOCACHE", "GOMODCACHE", "GOPATH"} {
		out, err := exec.CommandContext(ctx, "go", "env", name).Output()
		if err != nil {
			t.Fatalf("running go env: %v", err)
		}
		cmd.Env = append(cmd.Env, name+"="+strings.TrimSpace(string(out)))
	}
	cmd.Env = append(cmd.Env, "HOME="+home)
	ownGroup(cmd)
	cmd.WaitDelay = 10 * time.Second
	return cmd
}

// matchesOutput compares line by line without space at line ends; a line "..."
// in want matches any number of lines.
func matchesOutput(got, want string) bool {
	trim := func(s string) []string {
		lines := strings.Split(strings.TrimRight(s, "\n"), "\n")
		for i, l := range lines {
			lines[i] = strings.TrimRight(l, " \t\r")
		}
		return lines
	}
	var match func(got, want []string) bool
	match = func(got, want []string) bool {
		if len(want) == 0 {
			return len(got) == 0
		}
		if want[0] == "..." {
			for i := range len(got) + 1 {
				if match(got[i:], want[1:]) {
					return true
				}
			}
			return false
		}
		return len(got) > 0 && got[0] == want[0] && match(got[1:], want[1:])
	}
	return match(trim(got), trim(want))
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}

// watched keeps what a process prints and says when a text has been seen. exec
// calls Write from one goroutine only, because stdout and stderr are the same
// writer; String is called after the process has ended.
type watched struct {
	text []byte
	seen chan struct{}
	done bool
	held bytes.Buffer // not embedded: exec would use its ReadFrom, past our Write
}

func (w *watched) String() string { return w.held.String() }

func (w *watched) Write(p []byte) (int, error) {
	if w.held.Len()+len(p) > 1<<20 {
		return 0, errors.New("more than 1 MiB of output")
	}
	n, err := w.held.Write(p)
	if !w.done && bytes.Contains(w.held.Bytes(), w.text) {
		w.done = true
		close(w.seen)
	}
	return n, err
}
