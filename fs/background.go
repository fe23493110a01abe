package fs

import (
	"sync"
	"sync/atomic"
	"time"
)

// background runs the periodic tasks, and the work that outlives the request which began it.
type background struct {
	stop chan struct{} // closed by end; nil before start, while the mount is under way
	wg   sync.WaitGroup
	now  atomic.Int64 // the time in ns since the epoch, at most about a second old
}

// start is called at the end of a mount, before the first call of every.
func (b *background) start() { b.stop = make(chan struct{}) }

// started reports whether start was called, so that the mount is complete.
func (b *background) started() bool { return b.stop != nil }

// end stops the periodic tasks, and waits for them and for all other work in b.wg.
func (b *background) end() {
	close(b.stop)
	b.wg.Wait()
}

// every calls f at intervals of d until end, which waits for a running f. After a call it pauses
// for at least 20 times as long as the call took. If d is 0 it never calls f.
func (b *background) every(d time.Duration, f func()) {
	if d <= 0 {
		return
	}
	b.wg.Go(func() {
		t := time.NewTimer(d)
		defer t.Stop()
		for {
			select {
			case <-t.C:
				start := time.Now()
				f()
				t.Reset(max(d, 20*time.Since(start)))
			case <-b.stop:
				return
			}
		}
	})
}

// startBackground starts the periodic tasks. They make lazily updated times durable, and compact
// files. They write a region in an ordinary file back, so that a host crash loses at most about the
// last SyncInterval.
func (fs *FS) startBackground() {
	b := &fs.background
	b.start()
	if fs.opt.ReadOnly {
		return
	}
	b.every(time.Second, func() { fs.now() }) // updates b.now
	b.every(time.Second, fs.direct.sweepSome)
	b.every(time.Second, func() { fs.defrag.collapseEnded(&Caller{Cancel: b.stop}) })
	b.every(fs.opt.TimesInterval, fs.flushAllTimes)
	if fs.needsSync() {
		b.every(fs.opt.SyncInterval, func() {
			if err := fs.r.Sync(0, fs.sb.Size); err != nil {
				fs.warn("the region cannot be written back, so a crash of the host may lose recent changes: %v", err)
			}
		})
	}
	b.every(fs.opt.CompactInterval, func() { fs.Compact(&Caller{Cancel: b.stop}) })
}
