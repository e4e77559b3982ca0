package childproc

import (
	"bufio"
	"bytes"
	"os"
)

// Interpreter returns the program that the system starts to run the script at
// path, as the first line names it; "" of what is no script, or cannot be read.
func Interpreter(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	line, _ := bufio.NewReaderSize(f, 256).ReadSlice('\n') // the system reads no more
	rest, script := bytes.CutPrefix(line, []byte("#!"))
	if !script {
		return ""
	}
	// What Windows leaves at the end of a line belongs to the name, here as there.
	rest = bytes.TrimSuffix(bytes.TrimLeft(rest, " \t"), []byte("\n"))
	if i := bytes.IndexAny(rest, " \t"); i >= 0 {
		rest = rest[:i]
	}
	return string(rest)
}
