package keeper

import (
	"os"

	"github.com/transporthost/transporthost/host/internal/reexec"
)

// role is what the program is started as to be a keeper.
const role = "keeper"

func init() { reexec.As(role, func() int { return keep(os.Args[1:], os.Stdin) }) }
