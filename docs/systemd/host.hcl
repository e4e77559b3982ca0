application {
  command = ["/usr/local/bin/mcp-server"]
  mode    = "shared"
}

transport "websocket" {
  listen = ["ws://127.0.0.1:4500", "unix:///run/transporthost.sock"]
}

state { dir = "/var/lib/transporthost" }
