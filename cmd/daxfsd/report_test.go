package main

import (
	"os"
	"testing"
)

func TestReport(t *testing.T) {
	for _, c := range []struct {
		last reportLine
		want string
	}{
		{reportLine{Kind: "ready"}, ""},
		{reportLine{Kind: "error", Text: "no such region"}, "no such region"},
		{reportLine{Kind: "progress"}, "the daemon died before the filesystem was mounted; try again with --foreground"},
	} {
		rd, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		r := &reporter{w: w}
		r.send(reportLine{Kind: "note", Text: "hello"})
		r.send(c.last)
		r.send(reportLine{Kind: "note", Text: "too late"})
		if r.w != nil {
			r.w.Close()
		}
		var notes []string
		got := ""
		if err := listen(rd, func(l reportLine) {
			if l.Kind == "note" {
				notes = append(notes, l.Text)
			}
		}); err != nil {
			got = err.Error()
		}
		rd.Close()
		if got != c.want || notes[0] != "hello" {
			t.Errorf("got %q and notes %q, want %q", got, notes, c.want)
		}
	}
}
