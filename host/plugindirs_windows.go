package host

func systemPluginDirs() []string { return nil }
