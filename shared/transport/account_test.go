package transport

import "testing"

func TestShortAccount(t *testing.T) {
	for id, want := range map[string]string{
		"": "", "a": "a…", "acc-1": "acc…", "account_id": "acco…", "123456789012345": "1234…", "1234567890123456": "1234…3456",
		"acct-relay-zrblm4z3pioa": "acct…pioa", "ééééééééééééééééü": "éééé…éééü",
	} {
		if got := ShortAccount(id); got != want {
			t.Errorf("ShortAccount(%q) is %q, want %q", id, got, want)
		}
	}
}
