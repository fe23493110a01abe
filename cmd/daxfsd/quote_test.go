package main

import (
	"bytes"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap/zapcore"

	"github.com/daxfsd/daxfsd/fs"
	"github.com/daxfsd/daxfsd/pmem"
)

const nasty = "\x1b]0;owned\a\x1b[2J"

func TestQuoted(t *testing.T) {
	for in, want := range map[string]string{
		"":             "",
		"pool 1":       "pool 1",
		"größe":        "größe",
		"it's \\ here": "it's \\ here",
		nasty:          `$'\033]0;owned\a\033[2J'`,
		"a'\n\\":       `$'a\'\n\\'`,
		"\xff":         `$'\377'`,
		"\u009b2J":     `$'\302\2332J'`,
		"\u202egnp":    `$'\342\200\256gnp'`,
	} {
		if got := quoted(in); got != want {
			t.Errorf("%q: %s, expected %s", in, got, want)
		}
	}
	if got := visible("a\x1bb\nc\\"); got != "a\\033b\nc\\" {
		t.Errorf("%q", got)
	}
}

// raw reports whether s contains escape sequences that would reach a terminal.
func raw(s string) bool { return strings.ContainsAny(s, "\x1b\a") }

// TestEscapesStayInside checks that no escape sequence from images or other users reaches a
// terminal, in labels, names, mount points or messages.
func TestEscapesStayInside(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "img"+nasty)
	if err := pmem.Create(path, 32<<20, true); err != nil {
		t.Fatal(err)
	}
	region, err := pmem.Open(path, pmem.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fs.Mkfs(region, fs.MkfsOptions{Label: nasty}); err != nil {
		t.Fatal(err)
	}
	region.Close()
	for _, args := range [][]string{{"info", path}, {"fsck", "-n", path}, {"mkfs", "--force", "--label", nasty, path}} {
		cmd := newRoot()
		var out bytes.Buffer
		cmd.SetOut(&out)
		cmd.SetArgs(args)
		if err := cmd.Execute(); err != nil {
			t.Errorf("%v: %v", args, err)
		}
		if raw(out.String()) || !strings.Contains(out.String(), `\033`) {
			t.Errorf("%s: %q", args[0], out.String())
		}
	}
	file := fileExtents{File: nasty}
	i := interval{Mountpoint: nasty, Region: nasty}
	for what, text := range map[string]string{
		"filefrag": file.table(),
		"top":      strings.Join(i.head(), "\n"),
		"an error": oneSentence(errors.New(nasty)),
	} {
		if raw(text) || !strings.Contains(text, `\033`) {
			t.Errorf("%s: %q", what, text)
		}
	}
	encoded, err := visibleEncoder{zapcore.NewConsoleEncoder(zapcore.EncoderConfig{MessageKey: "m"})}.EncodeEntry(zapcore.Entry{Time: time.Now(), Message: nasty}, nil)
	if err != nil || raw(encoded.String()) {
		t.Errorf("log: %q %v", encoded, err)
	}
}
