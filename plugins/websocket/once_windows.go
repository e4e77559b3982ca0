package websocket

import "errors"

// canWriteOnce is false: the sockets are overlapped, and every write is left to
// the connection's goroutine.
const canWriteOnce = false

func writeOnce(uintptr, []byte) (int, error) { return 0, errors.ErrUnsupported }
