package supervisor

import (
	"errors"
	"fmt"
	"slices"

	"github.com/transporthost/transporthost/shared/transport"
)

// Bounds of what a plugin says when it is asked who it is, and at its start.
const (
	maxNameBytes    = 128 // of the plugin, its version, a key
	maxHelpBytes    = 2 << 10
	maxKeys         = 256 // with those inside of objects
	maxAllowed      = 64
	maxAddresses    = 64
	maxAddressBytes = 256
)

// checkDescription says what is wrong with a description. Nothing of it is used
// then: it is shown, and decides what a person may write into the configuration.
func checkDescription(d transport.Description) error {
	errs := []error{checkText("name", d.Name, maxNameBytes), checkText("version", d.Version, maxNameBytes)}
	if d.Locality != transport.Local && d.Locality != transport.Remote {
		errs = append(errs, errors.New("it says neither that it is local nor that it is remote"))
	}
	if n := countKeys(d.Config); n > maxKeys {
		errs = append(errs, fmt.Errorf("its configuration has %d keys, limit %d", n, maxKeys))
	} else {
		errs = append(errs, checkKeys(d.Config))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("what the plugin says of itself is wrong: %s", transport.Line(err.Error(), maxReportText))
	}
	return nil
}

// checkText says what is wrong with a text that is shown.
func checkText(what, s string, limit int) error {
	switch {
	case len(s) > limit:
		return fmt.Errorf("a %s of %d bytes, limit %d", what, len(s), limit)
	case s != transport.Line(s, limit):
		return fmt.Errorf("the %s %q, which is no line that can be printed", what, s)
	}
	return nil
}

func countKeys(keys []transport.ConfigKey) int {
	n := len(keys)
	for _, k := range keys {
		n += countKeys(k.Keys)
	}
	return n
}

func checkKeys(keys []transport.ConfigKey) error {
	known := []transport.ConfigType{transport.TypeString, transport.TypeNumber, transport.TypeBool, transport.TypeDuration,
		transport.TypeStrings, transport.TypeObject}
	var errs []error
	seen := map[string]bool{}
	for _, k := range keys {
		if !identifier(k.Name) {
			errs = append(errs, fmt.Errorf("the key %q, want letters, digits and _", transport.Line(k.Name, maxNameBytes)))
			continue
		}
		if seen[k.Name] {
			errs = append(errs, fmt.Errorf("the key %q twice", k.Name))
		}
		seen[k.Name] = true
		if !slices.Contains(known, k.Type) {
			errs = append(errs, fmt.Errorf("the key %q of type %q, which there is not", k.Name, transport.Line(string(k.Type), maxNameBytes)))
		}
		if len(k.Allowed) > maxAllowed {
			errs = append(errs, fmt.Errorf("the key %q with %d allowed values, limit %d", k.Name, len(k.Allowed), maxAllowed))
			continue
		}
		for _, a := range k.Allowed {
			errs = append(errs, checkText("allowed value", a, maxNameBytes))
		}
		errs = append(errs, checkText("help", k.Help, maxHelpBytes), checkKeys(k.Keys))
	}
	return errors.Join(errs...)
}

// identifier reports whether s may stand on the left of a configuration file.
func identifier(s string) bool {
	for i, r := range s {
		letter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r == '_'
		if !letter && (i == 0 || (r < '0' || r > '9') && r != '-') {
			return false
		}
	}
	return s != "" && len(s) <= maxNameBytes
}

// shownAddresses is what is kept of the addresses that a plugin names at its
// start.
func shownAddresses(addresses []string) []string {
	addresses = addresses[:min(len(addresses), maxAddresses)]
	shown := make([]string, 0, len(addresses))
	for _, a := range addresses {
		shown = append(shown, transport.Line(a, maxAddressBytes))
	}
	return shown
}
