package lineage

// Of cannot tell here, and says that it runs: nothing is removed by mistake.
func Of(pid int) (Identity, bool) { return Identity{PID: pid}, true }

// Namespace has nothing to name here.
func Namespace() string { return "" }
