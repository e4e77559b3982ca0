package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// generatedDir is the one folder with generated code.
const generatedDir = "shared/transportpb"

// generate makes the generated code anew, in place.
func (s shop) generate(ctx context.Context) error { return s.generateInto(ctx, s.root) }

func (s shop) generateInto(ctx context.Context, out string) error {
	return s.do(ctx, nil, "go", "run", "-C", filepath.Join("tools", "protogen"), ".",
		"-proto", filepath.Join(s.root, "shared", "proto"), "-out", out)
}

// checkGenerated fails if the committed generated code is not what generate
// makes.
func (s shop) checkGenerated(ctx context.Context) (err error) {
	fresh, err := os.MkdirTemp("", "transporthost-generated-")
	if err != nil {
		return fmt.Errorf("making a folder for generated code: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(fresh)) }()
	if err := s.generateInto(ctx, fresh); err != nil {
		return err
	}
	want, err := goFiles(filepath.Join(fresh, generatedDir))
	if err != nil {
		return err
	}
	got, err := goFiles(filepath.Join(s.root, generatedDir))
	if err != nil {
		return err
	}
	for name := range got {
		if _, ok := want[name]; !ok {
			return fmt.Errorf("%s/%s is not generated from shared/proto any more: delete it", generatedDir, name)
		}
	}
	for name, content := range want {
		if !bytes.Equal(got[name], content) {
			return fmt.Errorf("%s/%s is out of date: run go run ./tools/dev generate", generatedDir, name)
		}
	}
	return nil
}

// goFiles reads the Go files of one folder, by name.
func goFiles(dir string) (map[string][]byte, error) {
	paths, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		return nil, fmt.Errorf("listing %s: %w", dir, err)
	}
	files := map[string][]byte{}
	for _, p := range paths {
		content, err := os.ReadFile(p)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("reading generated code: %w", err)
		}
		files[filepath.Base(p)] = content
	}
	return files, nil
}
