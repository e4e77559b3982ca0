package rpc

import (
	"sync"

	"google.golang.org/grpc/mem"
)

// Chunks are buffers of encoded frames on their way to gRPC, which frees them
// when they are written. gRPC's own pool jumps from 32 KiB to 1 MiB and clears
// what it hands out; ours does neither.
const (
	smallChunk = 4 << 10   // of an idle link: one small message
	largeChunk = 144 << 10 // chunkBytes and one more frame of PieceBytes
)

type chunkPool struct {
	small, large sync.Pool
}

var _ mem.BufferPool = (*chunkPool)(nil)

// Get returns a buffer of length 0 with room for n bytes.
func (p *chunkPool) Get(n int) *[]byte {
	pool, size := &p.small, smallChunk
	if n > smallChunk {
		pool, size = &p.large, largeChunk
	}
	if b, ok := pool.Get().(*[]byte); ok && cap(*b) >= n {
		*b = (*b)[:0]
		return b
	}
	b := make([]byte, 0, max(n, size))
	return &b
}

// Put takes a buffer back. Odd sizes, which come from growth, are left to the
// garbage collector.
func (p *chunkPool) Put(b *[]byte) {
	switch c := cap(*b); {
	case c == smallChunk:
		p.small.Put(b)
	case c == largeChunk:
		p.large.Put(b)
	}
}
