package supervisor

import (
	"strconv"

	"github.com/transporthost/transporthost/host/internal/sandbox"
)

// confinedEnviron is what a confined process has to know: where it may write,
// and for one in Go, when to look harder for garbage. Its heap grows in steps of
// addresses, which the limit counts; hence the distance.
func confinedEnviron(p sandbox.Policy, private string) map[string]string {
	if p.Off {
		return map[string]string{}
	}
	return map[string]string{"TMPDIR": private, "GOMEMLIMIT": strconv.FormatUint(p.Memory/4*3, 10)}
}
