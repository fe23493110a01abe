package pmem

import (
	"bytes"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// log is a recorder that keeps a list of the calls, and replays the stores into shadow.
type log struct {
	events []string
	tids   []int
	shadow []byte
}

func (l *log) add(tid int, format string, args ...any) {
	l.events = append(l.events, fmt.Sprintf(format, args...))
	l.tids = append(l.tids, tid)
}

func (l *log) replay(off int64, data []byte) {
	if l.shadow != nil {
		copy(l.shadow[off:], data)
	}
}

func (l *log) Store(tid int, off int64, data []byte) {
	l.add(tid, "store %d+%d", off, len(data))
	l.replay(off, data)
}

func (l *log) Begin(int) {}

func (l *log) NTStore(tid int, off int64, data []byte) {
	l.add(tid, "nt %d+%d", off, len(data))
	l.replay(off, data)
}

func (l *log) Flush(tid int, off, n int64) { l.add(tid, "flush %d+%d", off, n) }
func (l *log) Fence(tid int)               { l.add(tid, "fence") }

// TestRecorder compares the reports of each primitive with the expected ones.
func TestRecorder(t *testing.T) {
	region := newMemory(t, 1<<16)
	src := bytes.Repeat([]byte{7}, 4096)
	for _, test := range []struct {
		name string
		call func() error
		want []string
	}{
		{"Store8", func() error { return region.Store8(72, 9) }, []string{"store 72+8"}},
		{"Store", func() error { return region.Store(128, src[:64]) }, []string{"store 128+64"}},
		{"nothing", func() error {
			region.Store(0, nil)
			region.NTStore(0, nil)
			region.NTZero(0, 0)
			return region.Flush(0, 0)
		}, nil},
		{"NTStore of lines", func() error { return region.NTStore(64, src[:128]) }, []string{"nt 64+128"}},
		{"NTStore with head and tail", func() error { return region.NTStore(60, src[:200]) },
			[]string{"store 60+4", "flush 0+64", "nt 64+192", "store 256+4", "flush 256+64"}},
		{"NTStore in a line", func() error { return region.NTStore(3, src[:7]) }, []string{"store 3+7", "flush 0+64"}},
		{"NTStore over a boundary", func() error { return region.NTStore(60, src[:8]) },
			[]string{"store 60+4", "flush 0+64", "store 64+4", "flush 64+64"}},
		{"NTZero", func() error { return region.NTZero(100, 100) },
			[]string{"store 100+28", "flush 64+64", "nt 128+64", "store 192+8", "flush 192+64"}},
		{"Flush", func() error { return region.Flush(63, 2) }, []string{"flush 0+128"}},
		{"Fence", func() error { region.Fence(); return nil }, []string{"fence"}},
		{"FlushFence", func() error { return region.FlushFence(64, 64) }, []string{"flush 64+64", "fence"}},
		{"out of range", func() error { region.Store(1<<16, src); return nil }, nil},
	} {
		recorder := &log{shadow: slices.Clone(region.Bytes(0, region.Size()))}
		region.SetRecorder(recorder)
		runtime.LockOSThread()
		if err := test.call(); err != nil {
			t.Errorf("%s: %v", test.name, err)
		}
		tid := unix.Gettid()
		runtime.UnlockOSThread()
		region.SetRecorder(nil)
		if !slices.Equal(recorder.events, test.want) {
			t.Errorf("%s: recorded %q, want %q", test.name, recorder.events, test.want)
		}
		if !bytes.Equal(recorder.shadow, region.Bytes(0, region.Size())) {
			t.Errorf("%s: what was recorded is not what was stored", test.name)
		}
		for _, got := range recorder.tids {
			if got != tid {
				t.Errorf("%s: thread %d, want %d", test.name, got, tid)
			}
		}
	}
	region.Store(0, src) // no recorder, no report
}

// TestRecorderOrder has goroutines record concurrently, and checks that replaying the record gives
// the region.
func TestRecorderOrder(t *testing.T) {
	r := newMemory(t, 1<<16)
	l := &log{shadow: make([]byte, 1<<16)}
	r.SetRecorder(l)
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			b := bytes.Repeat([]byte{byte(g + 1)}, 300)
			for i := range int64(200) {
				r.Store(i*64, b)
				r.NTStore(i*64+10, b)
				r.FlushFence(i*64, 310)
			}
		})
	}
	wg.Wait()
	r.SetRecorder(nil)
	if !bytes.Equal(l.shadow, r.Bytes(0, r.Size())) {
		t.Error("the record is in another order than the stores")
	}
}
