package backend

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
)

// Call sends a request and waits for its answer. It returns the result, or an
// [*RPCError]. params is marshalled; nil leaves it out.
func (c *Client) Call(ctx context.Context, method string, params any) (json.RawMessage, error) {
	m, err := c.call(ctx, method, params)
	if err != nil {
		return nil, fmt.Errorf("calling %q: %w", method, err)
	}
	if m.Error != nil {
		return nil, fmt.Errorf("calling %q: %w", method, m.Error)
	}
	return m.Result, nil
}

func (c *Client) call(ctx context.Context, method string, params any) (Message, error) {
	b := c.b
	answer := make(chan Message, 1) // the receiving side does not wait
	b.mu.Lock()
	if c.closed {
		b.mu.Unlock()
		return Message{}, ErrClientClosed
	}
	c.callID++
	id := strconv.FormatUint(c.callID, 10)
	c.calls[id] = answer
	b.mu.Unlock()
	defer func() {
		b.mu.Lock()
		delete(c.calls, id)
		b.mu.Unlock()
	}()
	request, err := encodeMessage(json.RawMessage(id), method, params)
	if err != nil {
		return Message{}, err
	}
	if err := c.Send(request); err != nil {
		return Message{}, err
	}
	select {
	case m, ok := <-answer:
		if !ok {
			return Message{}, ErrClientClosed
		}
		return m, nil
	case <-b.done:
		return Message{}, ErrClosed
	case <-ctx.Done():
		return Message{}, context.Cause(ctx)
	}
}

// Initialize begins a session with the usual request of that name and the
// notification behind it.
func (c *Client) Initialize(ctx context.Context, name string) (json.RawMessage, error) {
	result, err := c.Call(ctx, "initialize", map[string]any{"protocolVersion": "2025-06-18", "capabilities": map[string]any{},
		"clientInfo": map[string]string{"name": name, "version": "1"}})
	if err != nil {
		return nil, err
	}
	return result, c.Notify("notifications/initialized", nil)
}

// Notify sends a notification.
func (c *Client) Notify(method string, params any) error {
	message, err := encodeMessage(nil, method, params)
	if err != nil {
		return fmt.Errorf("notifying %q: %w", method, err)
	}
	return c.Send(message)
}

// Respond answers a request of the host.
func (c *Client) Respond(id json.RawMessage, result any) error {
	text, err := json.Marshal(result)
	if err != nil {
		return fmt.Errorf("encoding a result: %w", err)
	}
	return c.Send(fmt.Appendf(nil, `{"jsonrpc":"2.0","id":%s,"result":%s}`, id, text))
}

// RespondError answers a request of the host with an error.
func (c *Client) RespondError(id json.RawMessage, e RPCError) error {
	text, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("encoding an error: %w", err)
	}
	return c.Send(fmt.Appendf(nil, `{"jsonrpc":"2.0","id":%s,"error":%s}`, id, text))
}

func encodeMessage(id json.RawMessage, method string, params any) (json.RawMessage, error) {
	message, err := json.Marshal(struct {
		Version string          `json:"jsonrpc"`
		ID      json.RawMessage `json:"id,omitempty"`
		Method  string          `json:"method"`
		Params  any             `json:"params,omitempty"`
	}{"2.0", id, method, params})
	if err != nil {
		return nil, fmt.Errorf("encoding a message: %w", err)
	}
	return message, nil
}

// encodeError is the answer to what cannot be understood.
func encodeError(code int, text string) ([]byte, error) {
	return json.Marshal(struct {
		Version string   `json:"jsonrpc"`
		ID      *int     `json:"id"`
		Error   RPCError `json:"error"`
	}{Version: "2.0", Error: RPCError{Code: code, Message: text}})
}
