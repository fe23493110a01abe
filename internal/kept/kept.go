package kept

import (
	"sync"
	"sync/atomic"
	"time"
)

// Value is found out by one caller at a time, and then kept Times as long as that took: finding out
// takes at most one part in Times of a CPU, whoever asks. Safe for concurrent use.
type Value[T any] struct {
	Times int // immutable

	mu   sync.Mutex // held while somebody finds out
	last atomic.Pointer[found[T]]
}

type found[T any] struct {
	v     T
	until time.Time
}

// Get is what find last said, or says. Who asks while another finds out gets the value of before,
// and waits only for the first one.
func (k *Value[T]) Get(find func() T) T {
	f := k.last.Load()
	if f.fresh() {
		return f.v
	}
	if f == nil {
		k.mu.Lock()
	} else if !k.mu.TryLock() {
		return f.v
	}
	defer k.mu.Unlock()
	if f = k.last.Load(); f.fresh() {
		return f.v
	}
	start := time.Now()
	f = &found[T]{v: find()}
	f.until = time.Now().Add(time.Duration(k.Times) * time.Since(start))
	k.last.Store(f)
	return f.v
}

func (f *found[T]) fresh() bool { return f != nil && time.Now().Before(f.until) }
