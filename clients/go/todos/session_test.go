package todos

import "testing"

// Texts of the service, see the test of src/model/token.rs with the same texts.
const (
	earlier  = "AQAAAAAAAAAHAAAAAAAAAAoAAAAAAAAACpj2nQaRC2sD"
	later    = "AQAAAAAAAAAHAAAAAAAAAAsAAAAAAAAACejjLmA6UENV"
	stranger = "AQAAAAAAAAAIAAAAAAAAAAEAAAAAAAAAAZ6Ahy7aI_GU"
)

func TestSessionKeepsTheNewestToken(t *testing.T) {
	for _, c := range []struct{ has, gets, want, why string }{
		{"", earlier, earlier, "the first"},
		{earlier, later, later, "a newer one"},
		{later, earlier, later, "an answer to a call that presented no token"},
		{later, "", later, "an answer without one"},
		{later, stranger, stranger, "another database"},
		{later, "a token of the future", "a token of the future", "an unknown version"},
	} {
		session := session{token: c.has}
		session.observe(c.gets)
		if session.current() != c.want {
			t.Errorf("%s: %q after %q and %q", c.why, session.current(), c.has, c.gets)
		}
	}
	session := session{token: later}
	session.forget(earlier)
	if session.current() != later {
		t.Error("forgot another token than the refused one")
	}
	session.forget(later)
	if session.current() != "" {
		t.Error("keeps a refused token")
	}
}
