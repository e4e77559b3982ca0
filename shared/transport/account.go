package transport

// ShortAccount makes of an account's id what people are shown of it, in every
// status and log: enough for its owner to tell it from another one, and too
// little to use it.
func ShortAccount(id string) string {
	const end = 4
	r := []rune(id)
	switch n := len(r); {
	case n == 0:
		return ""
	case n < 4*end:
		return string(r[:min(end, (n+1)/2)]) + "…"
	default:
		return string(r[:end]) + "…" + string(r[n-end:])
	}
}
