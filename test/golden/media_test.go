package golden

import (
	"bytes"
	"sync"

	"github.com/daxfsd/daxfsd/pmem"
)

const lineSize = 64

// media records which bytes of a region are durable: those of a line that was flushed, or stored
// past the caches, before the last fence. It implements pmem.Recorder.
type media struct {
	r *pmem.Region

	mu      sync.Mutex
	durable []byte
	flushed map[int64][]byte // offset of a line: its bytes when it was flushed
	left    int              // fences until the power failure; 0: none
	failed  []byte           // the durable bytes at the power failure
}

// newMedia starts to record r. No other goroutine may use r meanwhile.
func newMedia(r *pmem.Region) *media {
	m := &media{r: r, durable: bytes.Clone(r.Bytes(0, r.Size())), flushed: map[int64][]byte{}}
	r.SetRecorder(m)
	return m
}

// atFence runs f and returns what is durable after its nth fence.
func (m *media) atFence(n int, f func()) []byte {
	m.mu.Lock()
	m.left = n
	m.mu.Unlock()
	f()
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.failed == nil {
		panic("it made fewer fences")
	}
	return m.failed
}

func (m *media) Begin(int) {}

func (m *media) Store(int, int64, []byte) {}

func (m *media) NTStore(tid int, off int64, data []byte) { m.Flush(tid, off, int64(len(data))) }

func (m *media) Flush(_ int, off, n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for ; n > 0; off, n = off+lineSize, n-lineSize {
		m.flushed[off] = bytes.Clone(m.r.Bytes(off, lineSize))
	}
}

func (m *media) Fence(int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for off, line := range m.flushed {
		copy(m.durable[off:], line)
	}
	clear(m.flushed)
	if m.left > 0 {
		if m.left--; m.left == 0 {
			m.failed = bytes.Clone(m.durable)
		}
	}
}
