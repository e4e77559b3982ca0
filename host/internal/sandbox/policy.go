package sandbox

import (
	"cmp"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// A Request is what the host knows of a process that it wants to start.
type Request struct {
	Exceptions
	// Named are files and directories that the plugin's configuration names: it
	// may read them, and what takes a file's place in its directory.
	Named []string
	// Exact are files that it may read, and nothing around them.
	Exact []string
	// Protected are the host's own secrets. Nothing that the request does not
	// name itself makes them readable.
	Protected []string
	// MaxMessageBytes is the host's limit, which memory must suffice for.
	MaxMessageBytes int
}

// A Policy is what a process is confined to, in the terms of the system. A path
// that is not there is left out.
type Policy struct {
	Off       bool     `json:"off,omitempty"`
	Execute   []string `json:"execute,omitempty"` // read and execute
	Read      []string `json:"read,omitempty"`
	Write     []string `json:"write,omitempty"`   // read and change
	Devices   []string `json:"devices,omitempty"` // read and write, not create
	Network   bool     `json:"network,omitempty"`
	Processes bool     `json:"processes,omitempty"`
	Metadata  bool     `json:"metadata,omitempty"` // may change modes and times of files
	Memory    uint64   `json:"memory"`
	Files     uint64   `json:"files"`
	Notes     []string `json:"notes,omitempty"` // what to say beside the missing
}

// A Place is where a process is started.
type Place struct {
	Executable string // path of the plugin
	Private    string // directory of its socket and its temporary files
	Inherited  bool   // the host gives it its sockets, or the terminal
	Getenv     func(string) string
	Home       string
	Root       bool // the host runs as root, which may read everything
}

// HerePlace returns the place of a process of this host.
func HerePlace(executable, private string, inherited bool) Place {
	home, _ := os.UserHomeDir() // "": there is none to protect
	if full, err := filepath.Abs(executable); err == nil {
		executable = full
	}
	return Place{Executable: executable, Private: private, Inherited: inherited, Getenv: os.Getenv, Home: home, Root: os.Getuid() == 0}
}

// Policy derives what a process at a place is confined to.
func (r Request) Policy(at Place) Policy {
	if r.Off {
		return Policy{Off: true}
	}
	p := Policy{
		Network: !at.Inherited, Processes: r.Processes, Metadata: len(r.Write) > 0,
		Memory: cmp.Or(r.Memory, DefaultMemory(r.MaxMessageBytes)), Files: cmp.Or(r.Files, DefaultFiles),
		Devices: []string{"/dev/null", "/dev/zero", "/dev/full"},
	}
	if r.Network != nil {
		p.Network = *r.Network
	}
	b := borders{home: at.Home}
	for _, path := range r.Protected {
		b.protected = append(b.protected, resolve(path))
	}
	for _, dir := range systemPrograms() {
		p.Execute = append(p.Execute, b.without(dir)...)
	}
	p.Execute = append(p.Execute, b.near(at.Executable)...)
	p.Execute = append(p.Execute, r.Read...)
	p.Read = append(p.Read, systemFiles()...)
	if p.Network {
		p.readNetwork(b, at)
	}
	for _, path := range r.Named {
		p.Read = append(p.Read, b.near(path)...)
	}
	p.Read = append(p.Read, r.Exact...)
	p.Write = append([]string{at.Private}, r.Write...)
	for _, list := range []*[]string{&p.Execute, &p.Read, &p.Write} {
		slices.Sort(*list)
		*list = slices.Compact(*list)
	}
	return p
}

// readNetwork adds what the names and certificates of other hosts need.
func (p *Policy) readNetwork(b borders, at Place) {
	for _, variable := range []string{"SSL_CERT_FILE", "SSL_CERT_DIR"} {
		for _, path := range filepath.SplitList(at.Getenv(variable)) {
			p.Read = append(p.Read, b.near(path)...)
		}
	}
	// Resolvers are told of another network by a new file in place of the old
	// one: whoever may read only the old one goes on asking the old network.
	p.Read = append(p.Read, "/run/systemd/resolve", "/run/NetworkManager", "/run/resolvconf", "/run/connman", "/var/run/nscd")
	if at.Root {
		p.Notes = append(p.Notes, "access to a resolv.conf that replaces the present one (a host of root does not open all of /etc)")
		return
	}
	p.Read = append(p.Read, b.without("/etc")...)
}

// systemPrograms hold programs and libraries, and no secrets.
func systemPrograms() []string {
	return []string{"/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/opt", "/nix/store", "/gnu/store"}
}

// systemFiles are what runtimes and libraries read about the system, without
// the rest of /etc, where others keep secrets.
func systemFiles() []string {
	list := []string{
		"/proc/self", "/proc/sys", "/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/proc/version", "/proc/filesystems",
		"/sys/devices/system/cpu", "/sys/devices/system/node", "/sys/kernel/mm/transparent_hugepage", "/sys/fs/cgroup",
		"/dev/random", "/dev/urandom", "/run/systemd/resolve",
	}
	for _, name := range []string{
		"ld.so.cache", "ld.so.conf", "ld.so.conf.d", "ld.so.preload", "ld-musl-x86_64.path", "ld-musl-aarch64.path",
		"resolv.conf", "hosts", "host.conf", "hostname", "nsswitch.conf", "gai.conf", "services", "protocols", "networks",
		"passwd", "group", "localtime", "timezone", "locale.alias", "locale.conf", "mime.types", "os-release", "lsb-release",
		"ssl/certs", "ssl/openssl.cnf", "ssl/cert.pem", "ssl/ca-bundle.pem", "pki/tls/certs", "pki/tls/cert.pem", "pki/tls/openssl.cnf",
		"pki/ca-trust", "ca-certificates", "ca-certificates.conf", "crypto-policies", "alternatives", "python3", "static/ssl",
	} {
		list = append(list, "/etc/"+name)
	}
	return list
}

// borders are what a rule that nobody wrote must not reach.
type borders struct {
	home      string
	protected []string
}

// near returns what to allow for a path that was named: the directory of a
// file, because a certificate is replaced by another file of its name; a
// directory itself. What would be too much is narrowed to the file.
func (b borders) near(path string) []string {
	if !filepath.IsAbs(path) {
		return nil
	}
	path = filepath.Clean(path)
	info, err := os.Stat(path)
	if err == nil && info.IsDir() {
		if b.broad(path) {
			return nil
		}
		return []string{path}
	}
	var allow []string
	candidates := []string{path}
	if resolved := resolve(path); resolved != path {
		candidates = append(candidates, resolved)
	}
	for _, file := range candidates {
		if dir := filepath.Dir(file); !b.broad(dir) {
			allow = append(allow, dir)
		} else if !b.touches(file) {
			allow = append(allow, file)
		}
	}
	return allow
}

// broad reports whether a directory is more than what somebody meant who named
// a file in it.
func (b borders) broad(dir string) bool {
	dir = resolve(dir)
	up := filepath.Dir(dir)
	return dir == up || up == filepath.Dir(up) || up == "/home" || up == "/var" || up == "/run" ||
		b.home != "" && inside(resolve(b.home), dir) || dir == resolve(os.TempDir()) || b.touches(dir)
}

// touches reports whether a protected path is at path or below it.
func (b borders) touches(path string) bool {
	path = resolve(path)
	return slices.ContainsFunc(b.protected, func(secret string) bool { return inside(secret, path) })
}

// without returns dir, or if something protected lies in it, what is around
// that.
func (b borders) without(dir string) []string {
	if !b.touches(dir) {
		return []string{dir}
	}
	entries, err := os.ReadDir(dir)
	if err != nil || slices.Contains(b.protected, resolve(dir)) {
		return nil
	}
	var rest []string
	for _, e := range entries {
		rest = append(rest, b.without(filepath.Join(dir, e.Name()))...)
	}
	return rest
}

// inside reports whether path is dir or below it.
func inside(path, dir string) bool {
	return path == dir || strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/")
}

// resolve follows symbolic links, as far as path is there.
func resolve(path string) string {
	if resolved, err := filepath.EvalSymlinks(path); err == nil {
		return resolved
	}
	dir := filepath.Dir(path)
	if dir == path {
		return path
	}
	return filepath.Join(resolve(dir), filepath.Base(path))
}
