package pluginsdk

// makePollable has nothing to do: processes do not inherit files here.
func makePollable(int) {}
