package main

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"go.uber.org/zap/buffer"
	"go.uber.org/zap/zapcore"
)

// What an image, a mount table or another user says goes to a terminal only in characters that can
// be seen: labels and names may hold escape sequences, which make a terminal do things.

// quoted is a name or label as GNU ls and printf %q show it: itself if all of it can be seen,
// else $'...' with escapes that a shell reads back.
func quoted(s string) string {
	v := escape(s, `\'`)
	if v == s || strings.IndexFunc(s, hidden) < 0 && utf8.ValidString(s) {
		return s
	}
	return "$'" + v + "'"
}

// visible is a message with escapes for what cannot be seen, but for the ends of lines.
func visible(s string) string {
	lines := strings.Split(s, "\n")
	for i, l := range lines {
		lines[i] = escape(l, "")
	}
	return strings.Join(lines, "\n")
}

// hidden reports whether a character is not one that a terminal shows: a control, a mark that
// changes the direction of what follows, or not valid.
func hidden(r rune) bool { return !unicode.IsPrint(r) }

// escape writes what is hidden in s, and the characters of also, as a shell's $'...' does.
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

// visibleEncoder is an encoder for a terminal whose messages can be seen.
type visibleEncoder struct{ zapcore.Encoder }

// Clone keeps it one.
func (e visibleEncoder) Clone() zapcore.Encoder { return visibleEncoder{e.Encoder.Clone()} }

// EncodeEntry writes a message.
func (e visibleEncoder) EncodeEntry(x zapcore.Entry, f []zapcore.Field) (*buffer.Buffer, error) {
	x.Message = visible(x.Message)
	return e.Encoder.EncodeEntry(x, f)
}
