package main

import (
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/transporthost/transporthost/shared/transport"
)

// inItsStreams are defects of the two streams, below what they carry.
func inItsStreams() map[string]func() int {
	intercepted := func(stream string, with func(s grpc.ServerStream, serve func(grpc.ServerStream) error) error) func() int {
		return func() int {
			return (&raw{options: []grpc.ServerOption{grpc.ChainStreamInterceptor(
				func(srv any, s grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
					serve := func(s grpc.ServerStream) error { return handler(srv, s) }
					if strings.HasSuffix(info.FullMethod, "/"+stream) {
						return with(s, serve)
					}
					return serve(s)
				})}}).main()
		}
	}
	// ends lets the stream be until the plugin is ready, and says what it says.
	ends := func(s grpc.ServerStream, _ func(grpc.ServerStream) error) error { return nil }
	says := func(batches ...[]byte) func(grpc.ServerStream, func(grpc.ServerStream) error) error {
		return func(s grpc.ServerStream, serve func(grpc.ServerStream) error) error {
			for _, b := range batches {
				if err := s.SendMsg(bytesField(b)); err != nil {
					return err
				}
			}
			return serve(s)
		}
	}
	newer := func(n int) [][]byte {
		var out [][]byte
		for range n {
			// Event{conn: 7, an event of number 999}, and a field of the batch that
			// nobody knows is not needed: the event is the field that is unknown.
			e := protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), 7)
			e = protowire.AppendBytes(protowire.AppendTag(e, 999, protowire.BytesType), []byte("of tomorrow"))
			out = append(out, e)
		}
		return out
	}
	return map[string]func() int{
		"ends-exchange":      intercepted("Exchange", ends),
		"ends-hostcalls":     intercepted("HostCalls", ends),
		"garbles-batches":    intercepted("Exchange", says([]byte{0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff})),
		"sends-huge-batches": intercepted("Exchange", says(make([]byte, 40<<20))),
		"is-of-tomorrow":     intercepted("Exchange", says(newer(10_000)...)),
		// It says what has to be answered, and reads no answer.
		"never-reads": func() int {
			return (&raw{
				serve: func(r *raw) {
					r.server.Opened(1, transport.Opened{})
					for {
						r.server.Checkpoint(1, []byte("x"))
						if r.server.WaitRoom(background()) != nil {
							return
						}
					}
				},
				told: func(*raw, command) { forever() },
			}).main()
		},
	}
}

// bytesField is a message whose one field has the number of a batch's frames.
func bytesField(b []byte) proto.Message { return wrapperspb.Bytes(b) }
