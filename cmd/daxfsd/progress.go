package main

import (
	"os"
	"sync"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/sys/unix"
)

// progressFunc is told how far a stage of work is; total 0 or less: unknown.
type progressFunc func(stage string, done, total int64)

// throttled passes on at most ten reports a second, and each stage's first. The
// result is safe for concurrent use, f need not be.
func throttled(f progressFunc) progressFunc {
	var mu sync.Mutex
	var last time.Time
	var in string
	return func(stage string, done, total int64) {
		mu.Lock()
		defer mu.Unlock()
		if now := time.Now(); stage != in || now.Sub(last) > 100*time.Millisecond {
			in, last = stage, now
			f(stage, done, total)
		}
	}
}

// isTerminal reports whether f is one.
func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// progress draws a bar on a terminal for a stage of work that takes longer than a
// second, and nothing for shorter ones. Without a terminal it does nothing. It is
// safe for concurrent use.
type progress struct {
	out *os.File // nil: no terminal

	mu    sync.Mutex
	start time.Time
	stage string
	pool  *mpb.Progress
	bar   *mpb.Bar
}

// patience is how long work goes on before a bar appears.
const patience = time.Second

func newProgress(out *os.File) *progress {
	p := &progress{start: time.Now()}
	if isTerminal(out) {
		p.out = out
	}
	return p
}

// update says that done of total is done in a stage. total 0 or less: unknown.
func (p *progress) update(stage string, done, total int64) {
	if p.out == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if stage != p.stage {
		p.endBar()
		p.stage = stage
	}
	if p.bar == nil {
		if time.Since(p.start) < patience || done >= total {
			return
		}
		if p.pool == nil {
			p.pool = mpb.New(mpb.WithOutput(p.out), mpb.WithWidth(40))
		}
		p.bar = p.pool.AddBar(total, mpb.BarRemoveOnComplete(),
			mpb.PrependDecorators(decor.Name(stage+" ")),
			mpb.AppendDecorators(decor.Percentage(), decor.Name(" "), decor.AverageETA(decor.ET_STYLE_GO)))
	}
	p.bar.SetTotal(total, false)
	p.bar.SetCurrent(done)
}

func (p *progress) endBar() {
	if p.bar != nil {
		p.bar.Abort(true)
		p.bar.Wait()
		p.bar = nil
	}
}

// end removes the bar.
func (p *progress) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.endBar()
	if p.pool != nil {
		p.pool.Wait()
		p.pool = nil
	}
}
