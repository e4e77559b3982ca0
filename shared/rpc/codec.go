package rpc

import (
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
)

// A codec carries batches as they are and leaves everything else (the unary
// calls, health, go-plugin's own services) to protobuf.
type codec struct {
	rest  encoding.CodecV2
	chunk *chunkPool
}

var _ encoding.CodecV2 = (*codec)(nil)

func newCodec(chunks *chunkPool) *codec {
	return &codec{rest: encoding.GetCodecV2(proto.Name), chunk: chunks}
}

// Name is that of protobuf: the bytes are the same.
func (c *codec) Name() string { return proto.Name }

// An outBatch is an encoded batch; marshalling it hands its chunk to gRPC.
type outBatch struct{ chunk *[]byte }

// An inBatch is a received batch. Its bytes are valid until the next one is
// received into it.
type inBatch struct {
	b    []byte
	own  []byte     // for batches that came in several parts
	lent mem.Buffer // for batches that came in one
}

func (c *codec) Marshal(v any) (mem.BufferSlice, error) {
	out, ok := v.(*outBatch)
	if !ok {
		return c.rest.Marshal(v)
	}
	return mem.BufferSlice{mem.NewBuffer(out.chunk, c.chunk)}, nil
}

func (c *codec) Unmarshal(data mem.BufferSlice, v any) error {
	in, ok := v.(*inBatch)
	if !ok {
		return c.rest.Unmarshal(data, v)
	}
	in.release()
	if len(data) == 1 {
		data[0].Ref()
		in.lent = data[0]
		in.b = in.lent.ReadOnlyData()
		return nil
	}
	n := data.Len()
	if cap(in.own) < n {
		in.own = make([]byte, max(n, smallChunk))
	}
	in.b = in.own[:n]
	data.CopyTo(in.b)
	return nil
}

// release gives back what the batch borrowed.
func (in *inBatch) release() {
	if in.lent != nil {
		in.lent.Free()
		in.lent = nil
	}
	in.b = nil
}
