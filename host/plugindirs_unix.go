//go:build unix

package host

func systemPluginDirs() []string {
	return []string{"/usr/local/lib/transporthost/plugins", "/usr/lib/transporthost/plugins"}
}
