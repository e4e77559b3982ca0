package keeper

import "os/exec"

// setSession does nothing: there are no keepers here.
func setSession(*exec.Cmd) {}
