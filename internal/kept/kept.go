package kept

import (
	"sync"
	"sync/atomic"
	"time"
)

// Value caches a computed value. One caller at a time computes it; the result is then valid for
// Times times as long as the computation took. So the computation takes at most about 1/Times of
// one CPU, however many callers ask. It is safe for concurrent use.
type Value[T any] struct {
	Times int // validity, as a multiple of the time of the computation; immutable

	mu   sync.Mutex // held while a caller computes the value
	last atomic.Pointer[found[T]]
}

// found is a computed value.
type found[T any] struct {
	v     T
	until time.Time // end of the validity
}

// Get returns the cached value, or calls find if there is none or it has expired. While one caller
// computes a new value, the others get the expired one; they wait only for the first value.
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
