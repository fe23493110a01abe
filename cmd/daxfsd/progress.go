package main

import (
	"os"
	"sync"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/sys/unix"
)

// progressFunc is called with the progress of a stage of work. The unit of done and total depends
// on the stage; total is at most 0 if unknown.
type progressFunc func(stage string, done, total int64)

// throttled passes on at most ten reports a second, and the first of each stage. The returned
// function is safe for concurrent use; f need not be.
func throttled(f progressFunc) progressFunc {
	var mu sync.Mutex
	var last time.Time
	var current string
	return func(stage string, done, total int64) {
		mu.Lock()
		defer mu.Unlock()
		if now := time.Now(); stage != current || now.Sub(last) > 100*time.Millisecond {
			current, last = stage, now
			f(stage, done, total)
		}
	}
}

// isTerminal reports whether f is a terminal.
func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// progress draws a bar on a terminal for work that takes longer than barDelay. Without a terminal
// it does nothing. It is safe for concurrent use.
type progress struct {
	out *os.File // nil: not a terminal

	mu    sync.Mutex
	start time.Time
	stage string
	pool  *mpb.Progress
	bar   *mpb.Bar
}

// barDelay is how long work goes on before a bar appears.
const barDelay = time.Second

func newProgress(out *os.File) *progress {
	p := &progress{start: time.Now()}
	if isTerminal(out) {
		p.out = out
	}
	return p
}

// update shows that done of total is done in a stage, and is a progressFunc.
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
		if time.Since(p.start) < barDelay || done >= total {
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
