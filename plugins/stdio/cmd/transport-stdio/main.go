// Command transport-stdio is the plugin that serves the program that started
// the host, over the host's stdin and stdout.
package main

import (
	"os"

	pluginsdk "github.com/transporthost/transporthost/plugin-sdk"
	"github.com/transporthost/transporthost/plugins/stdio"
)

func main() { os.Exit(pluginsdk.Main(stdio.New())) }
