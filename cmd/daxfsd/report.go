package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
)

// A daemon tells the command that started it how mounting goes, over a pipe whose
// descriptor is in the environment variable reportEnv: one JSON object a line.
// The last line is "ready" or "error"; end of file without either means that the
// daemon died.
type reportLine struct {
	Kind  string `json:"kind"` // progress, note, ready, error
	Text  string `json:"text,omitempty"`
	Done  int64  `json:"done,omitempty"`
	Total int64  `json:"total,omitempty"`
}

const reportEnv = "DAXFSD_REPORT_FD"

// reporter is the daemon's side. Safe for concurrent use.
type reporter struct {
	mu sync.Mutex
	w  *os.File // nil: nobody listens (any more)
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

// listen is the starter's side: it shows progress and notes until the daemon is
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
			return fmt.Errorf("the daemon said something that is not understood: %w", err)
		case l.Kind == "ready":
			return nil
		case l.Kind == "error":
			return errors.New(l.Text)
		}
		show(l)
	}
}
