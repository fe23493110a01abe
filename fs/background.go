package fs

import (
	"sync"
	"time"
)

// background is what goes on beside the requests: what is done from time to time, and what outlives
// the request that began it.
type background struct {
	stop chan struct{} // closed by end; nil: not started, so the mount is still under way
	wg   sync.WaitGroup
}

// start allows every to be called.
func (b *background) start() { b.stop = make(chan struct{}) }

// started reports whether the mount is over.
func (b *background) started() bool { return b.stop != nil }

// end stops what every began and waits for it, and for what goes on otherwise.
func (b *background) end() {
	close(b.stop)
	b.wg.Wait()
}

// every calls f once in that time until the end, which waits for it; never if it is 0. It
// lets 20 times as long pass as a call has taken, at least.
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

// startBackground starts what is done from time to time: lazily kept times become durable; a region
// in an ordinary file is written back, so that what a crash of the host leaves of it is not much
// older than the interval; files are compacted.
func (fs *FS) startBackground() {
	b := &fs.background
	b.start()
	if fs.opt.ReadOnly {
		return
	}
	b.every(time.Second, func() { fs.now() }) // for coarse
	b.every(fs.opt.TimesInterval, fs.flushAllTimes)
	if fs.needsSync() {
		b.every(fs.opt.SyncInterval, func() {
			if err := fs.r.Sync(0, fs.sb.Size); err != nil {
				fs.warn("writing the region back: %v", err)
			}
		})
	}
	b.every(fs.opt.CompactInterval, func() { fs.Compact(&Caller{Cancel: b.stop}) })
}
