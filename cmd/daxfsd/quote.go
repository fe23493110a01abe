package main

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"go.uber.org/zap/buffer"
	"go.uber.org/zap/zapcore"
)

// Text from an image, a mount table or another user reaches a terminal only with invisible
// characters escaped: labels and names may hold escape sequences, which would control the terminal.

// quoted quotes a name or label like GNU ls and printf %q: it returns s if all characters are
// visible, otherwise $'...' with escapes that a shell reads back.
func quoted(s string) string {
	v := escape(s, `\'`)
	if v == s || strings.IndexFunc(s, hidden) < 0 && utf8.ValidString(s) {
		return s
	}
	return "$'" + v + "'"
}

// visible escapes the invisible characters of a message, except for line ends.
func visible(s string) string {
	lines := strings.Split(s, "\n")
	for i, l := range lines {
		lines[i] = escape(l, "")
	}
	return strings.Join(lines, "\n")
}

// hidden reports whether a terminal does not show a character: a control character, a mark that
// changes the writing direction, or an invalid one.
func hidden(r rune) bool { return !unicode.IsPrint(r) }

// escape escapes the hidden characters of s, and those in also, as a shell's $'...' does.
func escape(s, also string) string {
	var b strings.Builder
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		switch k := strings.IndexByte("\a\b\t\n\v\f\r", s[i]); {
		case k >= 0:
			b.WriteString(`\` + "abtnvfr"[k:k+1])
		case r == utf8.RuneError && n == 1, hidden(r):
			for _, c := range []byte(s[i : i+n]) {
				fmt.Fprintf(&b, `\%03o`, c)
			}
		case strings.ContainsRune(also, r):
			b.WriteString(`\` + string(r))
		default:
			b.WriteString(s[i : i+n])
		}
		i += n
	}
	return b.String()
}

// visibleEncoder is an encoder for a terminal that escapes messages.
type visibleEncoder struct{ zapcore.Encoder }

// Clone returns a visibleEncoder too.
func (e visibleEncoder) Clone() zapcore.Encoder { return visibleEncoder{e.Encoder.Clone()} }

// EncodeEntry encodes an entry with its message escaped.
func (e visibleEncoder) EncodeEntry(x zapcore.Entry, f []zapcore.Field) (*buffer.Buffer, error) {
	x.Message = visible(x.Message)
	return e.Encoder.EncodeEntry(x, f)
}
