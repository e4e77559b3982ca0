//go:build linux

package main

import (
	"encoding/json"
	"fmt"
)

// initializeID is the id of every initialize; statements have numbers.
const initializeID = "begin"

const initializedNotification = `{"jsonrpc":"2.0","method":"notifications/initialized"}`

func initializeRequest(name string) string {
	return fmt.Sprintf(`{"jsonrpc":"2.0","id":%q,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{},"clientInfo":{"name":%q,"version":"1"}}}`,
		initializeID, name)
}

// isInitialized recognises the answer to initialize.
func isInitialized(payload []byte) bool {
	var m incoming
	return json.Unmarshal(payload, &m) == nil && string(m.ID) == `"`+initializeID+`"` && m.Error == nil
}
