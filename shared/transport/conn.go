package transport

import "strconv"

// A ConnID names one connection on the link of one process. The process
// numbers its connections from 1; a connection that it adopts from an earlier
// process keeps its number (see [Resume]). 0 is no connection.
type ConnID uint64

func (id ConnID) String() string { return strconv.FormatUint(uint64(id), 10) }

// A Seq numbers the messages that the host sends on one connection, from 1.
type Seq uint64

// A Cursor is a transport's own note of how far it has read a connection. Only
// the transport that made it can read it; the host hands the last accepted one
// back on resumption. At most [MaxCursorBytes].
type Cursor string

// A ResumeKey names a connection across processes of one plugin: a connection
// opened with one survives the process that opened it. Empty means that the
// connection dies with its process.
type ResumeKey string

// A Peer is what a transport knows of the program at the far end of a
// connection. Every field may be empty; none holds a secret.
type Peer struct {
	RemoteAddr string `json:"remote_addr,omitempty"` // as the wire shows it: "127.0.0.1:51234", "pid 4711"
	LocalAddr  string `json:"local_addr,omitempty"`  // the address that the peer reached
	Identity   string `json:"identity,omitempty"`    // who authentication says it is; empty without authentication
	UserAgent  string `json:"user_agent,omitempty"`
	ClientName string `json:"client_name,omitempty"` // clientInfo.name, where the wire tells it before initialize
}

// Opened says that a peer reached the plugin. It precedes everything else on
// its connection.
type Opened struct {
	Peer      Peer
	ResumeKey ResumeKey
	// Lossless asks that the application wait for this connection when its
	// out-queue is full, instead of the connection being closed as slow.
	// For wires whose far end is one local reader, such as stdio.
	Lossless bool
}

// A Rejection is what a transport read of a peer and could not deliver: an
// overlong line, text that is not UTF-8, an empty line.
type Rejection struct {
	Cursor     Cursor // as of a message; empty if there is none
	Text       string // of the error that the host answers with; empty: it answers nothing
	Unparsable bool   // the error is a parse error, not an invalid request
}

// Credit returns room to the sender of one connection: so many bytes of
// payload in so many messages have really left (to the socket, or into the
// application). Pieces of one message count bytes as they go and the message
// once, with its last piece.
type Credit struct {
	Bytes    int
	Messages int
}

// A Resume hands a connection of a dead process to the next one.
type Resume struct {
	Conn       ConnID
	Key        ResumeKey
	Cursor     Cursor // the last that the host accepted; empty if none
	Checkpoint []byte // the last that was stored; nil if none
	NextSeq    Seq    // the number of the first message that will be sent
}
