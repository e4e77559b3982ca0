//lint:file-ignore SA1019 sampling is deprecated since 2026-07-28, and what clients of older versions speak.

// Command mcp-server is a small MCP server on stdin and stdout, made with the
// official Go SDK: an application to try transporthost with. It knows nothing
// of transporthost.
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := newServer().Run(ctx, &mcp.StdioTransport{}); err != nil && ctx.Err() == nil {
		log.Fatal(err)
	}
}

func newServer() *mcp.Server {
	s := mcp.NewServer(&mcp.Implementation{Name: "example", Version: "1.0.0"}, &mcp.ServerOptions{
		Instructions: "A few tools that show what travels between an MCP server and its client.",
	})
	mcp.AddTool(s, &mcp.Tool{Name: "add", Description: "adds two numbers"}, add)
	mcp.AddTool(s, &mcp.Tool{Name: "word_count", Description: "counts the words of a text"}, wordCount)
	mcp.AddTool(s, &mcp.Tool{Name: "countdown", Description: "counts down, reporting progress; can be cancelled"}, countdown)
	mcp.AddTool(s, &mcp.Tool{Name: "ask", Description: "asks the person at the client for a name (elicitation)"}, ask)
	mcp.AddTool(s, &mcp.Tool{Name: "summarize", Description: "has the client's model summarize a text (sampling)"}, summarize)
	s.AddResource(&mcp.Resource{Name: "about", URI: "example://about", MIMEType: "text/plain"}, about)
	s.AddPrompt(&mcp.Prompt{
		Name: "review", Description: "a prompt to review code",
		Arguments: []*mcp.PromptArgument{{Name: "language", Required: true}},
	}, review)
	return s
}

type addIn struct {
	A float64 `json:"a" jsonschema:"the first number"`
	B float64 `json:"b" jsonschema:"the second number"`
}

type addOut struct {
	Sum float64 `json:"sum"`
}

func add(_ context.Context, _ *mcp.CallToolRequest, in addIn) (*mcp.CallToolResult, addOut, error) {
	return nil, addOut{in.A + in.B}, nil
}

type textIn struct {
	Text string `json:"text" jsonschema:"the text"`
}

type countOut struct {
	Words int `json:"words"`
}

func wordCount(_ context.Context, _ *mcp.CallToolRequest, in textIn) (*mcp.CallToolResult, countOut, error) {
	return nil, countOut{len(strings.Fields(in.Text))}, nil
}

type countdownIn struct {
	From         int `json:"from" jsonschema:"where to begin"`
	Milliseconds int `json:"milliseconds,omitempty" jsonschema:"the pause between two numbers; 100 if left out"`
}

func countdown(ctx context.Context, req *mcp.CallToolRequest, in countdownIn) (*mcp.CallToolResult, any, error) {
	if in.From < 0 || in.From > 1000 {
		return nil, nil, fmt.Errorf("from is %d, want 0 to 1000", in.From)
	}
	pause := 100 * time.Millisecond
	if in.Milliseconds > 0 {
		pause = time.Duration(in.Milliseconds) * time.Millisecond
	}
	for i := range in.From {
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil, nil, context.Cause(ctx)
		}
		if token := req.Params.GetProgressToken(); token != nil {
			err := req.Session.NotifyProgress(ctx, &mcp.ProgressNotificationParams{
				ProgressToken: token, Progress: float64(i + 1), Total: float64(in.From),
			})
			if err != nil {
				return nil, nil, fmt.Errorf("reporting progress: %w", err)
			}
		}
	}
	return text("lift-off"), nil, nil
}

func ask(ctx context.Context, req *mcp.CallToolRequest, _ struct{}) (*mcp.CallToolResult, any, error) {
	answer, err := req.Session.Elicit(ctx, &mcp.ElicitParams{
		Message: "What is your name?",
		RequestedSchema: map[string]any{
			"type": "object", "properties": map[string]any{"name": map[string]any{"type": "string"}},
		},
	})
	if err != nil {
		return nil, nil, fmt.Errorf("asking: %w", err)
	}
	if answer.Action != "accept" {
		return text("nobody wanted to tell"), nil, nil
	}
	return text(fmt.Sprintf("Hello, %v.", answer.Content["name"])), nil, nil
}

func summarize(ctx context.Context, req *mcp.CallToolRequest, in textIn) (*mcp.CallToolResult, any, error) {
	answer, err := req.Session.CreateMessage(ctx, &mcp.CreateMessageParams{
		MaxTokens: 200,
		Messages:  []*mcp.SamplingMessage{{Role: "user", Content: &mcp.TextContent{Text: "Summarize: " + in.Text}}},
	})
	if err != nil {
		return nil, nil, fmt.Errorf("asking the client's model: %w", err)
	}
	return &mcp.CallToolResult{Content: []mcp.Content{answer.Content}}, nil, nil
}

func about(context.Context, *mcp.ReadResourceRequest) (*mcp.ReadResourceResult, error) {
	return &mcp.ReadResourceResult{Contents: []*mcp.ResourceContents{{
		URI: "example://about", MIMEType: "text/plain", Text: "An example MCP server behind transporthost.",
	}}}, nil
}

func review(_ context.Context, req *mcp.GetPromptRequest) (*mcp.GetPromptResult, error) {
	return &mcp.GetPromptResult{Messages: []*mcp.PromptMessage{{
		Role: "user", Content: &mcp.TextContent{Text: "Review this " + req.Params.Arguments["language"] + " code."},
	}}}, nil
}

func text(s string) *mcp.CallToolResult {
	return &mcp.CallToolResult{Content: []mcp.Content{&mcp.TextContent{Text: s}}}
}
