package servers

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
)

// Child answers newline-delimited requests from r on w until r ends. It writes
// when nothing more is buffered: the application that the host starts for a
// peer should not be what is measured.
func Child(r io.Reader, w io.Writer) error {
	in := bufio.NewReaderSize(r, 64<<10)
	var line, out []byte
	for {
		part, err := in.ReadSlice('\n')
		line = append(line, part...)
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading requests: %w", err)
		}
		before := len(out)
		if out, err = appendEcho(out, bytes.TrimSpace(line)); err != nil {
			return err
		}
		if len(out) > before {
			out = append(out, '\n')
		}
		line = line[:0]
		if in.Buffered() > 0 && len(out) < maxPending {
			continue
		}
		if _, err := w.Write(out); err != nil {
			return fmt.Errorf("writing answers: %w", err)
		}
		out = out[:0]
	}
}
