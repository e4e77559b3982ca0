// Command protogen compiles the .proto files of this project and runs the Go
// code generators over them. It stands in for protoc and buf: the first is not
// a Go program, the second wants an unreleased version of protobuf and takes
// minutes to build. It is a module of its own, so that a compiler that only
// contributors need is no dependency of the product.
//
//	go run -C tools/protogen . -proto ../../shared/proto -out ../..
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"

	"github.com/bufbuild/protocompile"
	"github.com/bufbuild/protocompile/linker"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/pluginpb"
)

// modulePrefix is cut from the names of generated files: go_package holds the
// import path, -out the folder of the module.
const modulePrefix = "github.com/transporthost/transporthost"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	code := run(ctx, os.Args[1:], os.Stderr)
	stop()
	os.Exit(code)
}

func run(ctx context.Context, args []string, stderr io.Writer) int {
	flags := flag.NewFlagSet("protogen", flag.ContinueOnError)
	flags.SetOutput(stderr)
	protoDir := flags.String("proto", "", "root `folder` of the .proto files")
	outDir := flags.String("out", "", "`folder` of the Go module that the code belongs to")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	if *protoDir == "" || *outDir == "" || flags.NArg() > 0 {
		fmt.Fprintln(stderr, "protogen: -proto and -out are required, and nothing else")
		return 2
	}
	if err := generate(ctx, *protoDir, *outDir); err != nil {
		fmt.Fprintf(stderr, "protogen: %v\n", err)
		return 1
	}
	return 0
}

// generate compiles every .proto below protoDir and writes what the generators
// make of them below outDir.
func generate(ctx context.Context, protoDir, outDir string) error {
	names, err := protoFiles(protoDir)
	if err != nil {
		return err
	}
	compiler := protocompile.Compiler{
		Resolver:       protocompile.WithStandardImports(&protocompile.SourceResolver{ImportPaths: []string{protoDir}}),
		SourceInfoMode: protocompile.SourceInfoStandard, // the comments
	}
	files, err := compiler.Compile(ctx, names...)
	if err != nil {
		return fmt.Errorf("compiling %s: %w", protoDir, err)
	}
	request := &pluginpb.CodeGeneratorRequest{
		FileToGenerate: names,
		Parameter:      proto.String("module=" + modulePrefix),
		ProtoFile:      descriptors(files),
	}
	for _, generator := range []string{"protoc-gen-go", "protoc-gen-go-grpc"} {
		response, err := runGenerator(ctx, generator, request)
		if err != nil {
			return fmt.Errorf("running %s: %w", generator, err)
		}
		for _, f := range response.GetFile() {
			path := filepath.Join(outDir, filepath.FromSlash(f.GetName()))
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				return fmt.Errorf("making the folder of %s: %w", f.GetName(), err)
			}
			if err := os.WriteFile(path, []byte(f.GetContent()), 0o644); err != nil {
				return fmt.Errorf("writing generated code: %w", err)
			}
		}
	}
	return nil
}

// protoFiles lists the .proto files below dir by their import paths, sorted.
func protoFiles(dir string) ([]string, error) {
	var names []string
	err := fs.WalkDir(os.DirFS(dir), ".", func(path string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() && strings.HasSuffix(path, ".proto") {
			names = append(names, path)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("listing .proto files: %w", err)
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("no .proto file below %s", dir)
	}
	return names, nil
}

// descriptors returns files and all they import, imports first, as generators
// expect them.
func descriptors(files linker.Files) []*descriptorpb.FileDescriptorProto {
	var out []*descriptorpb.FileDescriptorProto
	seen := map[string]bool{}
	var add func(f protoreflect.FileDescriptor)
	add = func(f protoreflect.FileDescriptor) {
		if seen[f.Path()] {
			return
		}
		seen[f.Path()] = true
		for i := range f.Imports().Len() {
			add(f.Imports().Get(i))
		}
		out = append(out, protodesc.ToFileDescriptorProto(f))
	}
	for _, f := range files {
		add(f)
	}
	return out
}

// runGenerator runs one generator, pinned in go.mod, over request.
func runGenerator(ctx context.Context, name string, request *pluginpb.CodeGeneratorRequest) (*pluginpb.CodeGeneratorResponse, error) {
	in, err := proto.Marshal(request)
	if err != nil {
		return nil, fmt.Errorf("encoding the request: %w", err)
	}
	cmd := exec.CommandContext(ctx, "go", "tool", name)
	cmd.Stdin = bytes.NewReader(in)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, err
	}
	var response pluginpb.CodeGeneratorResponse
	if err := proto.Unmarshal(out, &response); err != nil {
		return nil, fmt.Errorf("decoding the answer: %w", err)
	}
	if response.Error != nil {
		return nil, errors.New(response.GetError())
	}
	return &response, nil
}
