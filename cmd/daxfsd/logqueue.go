package main

import (
	"bytes"
	"fmt"
	"os"
	"sync/atomic"
	"time"
)

// lineQueue writes a log to a pipe or a terminal, whose reader may stop reading without closing
// (Ctrl-S). Requests wait for the reader at most once, for stuckAfter. After that, lines are
// dropped and counted until there is room again. A goroutine writes the lines, for as long as the
// process lives.
type lineQueue struct {
	out   *os.File
	lines chan []byte
	busy  atomic.Int64 // lines accepted and not yet written
	lost  atomic.Int64 // lines dropped since the last one was written
	stuck atomic.Bool  // the last line found no room
}

const (
	queuedLines = 1024
	stuckAfter  = time.Second
)

func newLineQueue(out *os.File) *lineQueue {
	w := &lineQueue{out: out, lines: make(chan []byte, queuedLines)}
	go func() {
		for b := range w.lines {
			if n := w.lost.Swap(0); n > 0 {
				fmt.Fprintf(out, "{\"level\":\"warn\",\"msg\":\"the reader of the log was too slow: lines are lost\",\"lines\":%d}\n", n)
			}
			_, _ = out.Write(b)
			w.busy.Add(-1)
		}
	}()
	return w
}

// Write queues a line. It never fails.
func (w *lineQueue) Write(b []byte) (int, error) {
	line := bytes.Clone(b)
	w.busy.Add(1)
	select {
	case w.lines <- line:
		w.stuck.Store(false)
		return len(b), nil
	default:
	}
	if !w.stuck.Load() {
		select {
		case w.lines <- line:
			return len(b), nil
		case <-time.After(stuckAfter):
			w.stuck.Store(true)
		}
	}
	w.busy.Add(-1)
	w.lost.Add(1)
	return len(b), nil
}

// Sync waits until everything is written, for at most stuckAfter.
func (w *lineQueue) Sync() error {
	for start := time.Now(); w.busy.Load() > 0 && time.Since(start) < stuckAfter; {
		time.Sleep(time.Millisecond)
	}
	return nil
}
