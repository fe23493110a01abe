package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
)

// reportLine is a message from a daemon to the command that started it: one JSON object per line of
// a pipe, whose descriptor is in the environment variable reportEnv. The last line is "ready" or
// "error". End of file without either means that the daemon died.
type reportLine struct {
	Kind  string `json:"kind"` // progress, note, ready, error
	Text  string `json:"text,omitempty"`
	Done  int64  `json:"done,omitempty"`
	Total int64  `json:"total,omitempty"`
}

const reportEnv = "DAXFSD_REPORT_FD"

// reporter is the daemon's end of the pipe. It is safe for concurrent use.
type reporter struct {
	mu sync.Mutex
	w  *os.File // nil: no starter listens (any more)
}

func (r *reporter) send(l reportLine) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.w == nil {
		return
	}
	b, _ := json.Marshal(l)
	_, _ = r.w.Write(append(b, '\n'))
	if l.Kind == "ready" || l.Kind == "error" {
		r.w.Close()
		r.w = nil
	}
}

// listen is the starter's end of the pipe: it passes progress and notes to show until the daemon is
// ready (nil) or has failed.
func listen(rd io.Reader, show func(reportLine)) error {
	dec := json.NewDecoder(rd)
	for {
		var l reportLine
		err := dec.Decode(&l)
		switch {
		case errors.Is(err, io.EOF):
			return errors.New("the daemon died before the filesystem was mounted; try again with --foreground")
		case err != nil:
			return fmt.Errorf("the daemon's report cannot be parsed: %w", err)
		case l.Kind == "ready":
			return nil
		case l.Kind == "error":
			return errors.New(l.Text)
		}
		show(l)
	}
}
