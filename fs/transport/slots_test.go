package transport

import (
	"sync"
	"testing"
	"time"
)

// TestSlots checks that one user's requests take half of the slots and no more, that another user's
// first request runs at once whatever else runs and waits, and that a request that is away takes no
// slot.
func TestSlots(t *testing.T) {
	s := newSlots(4)
	type begun struct {
		uid  uint32
		slot *Slot
		end  chan struct{}
	}
	began := make(chan begun, 100)
	submit := func(uid uint32) {
		s.submit(uid, func(k *Slot) {
			b := begun{uid, k, make(chan struct{})}
			began <- b
			<-b.end
		})
	}
	next := func() begun {
		t.Helper()
		select {
		case b := <-began:
			return b
		case <-time.After(10 * time.Second):
			t.Fatal("nothing began")
			return begun{}
		}
	}
	none := func() {
		t.Helper()
		select {
		case b := <-began:
			t.Fatalf("a request of user %d began", b.uid)
		case <-time.After(10 * time.Millisecond):
		}
	}
	for range 10 {
		submit(1)
	}
	a, b := next(), next()
	none()
	submit(2)
	c := next()
	if c.uid != 2 {
		t.Fatalf("a request of user %d began, expected one of 2", c.uid)
	}
	submit(3)
	d := next()
	submit(2)
	none() // four run
	submit(4)
	f := next()
	if f.uid != 4 {
		t.Fatalf("a request of user %d began, expected one of 4", f.uid)
	}
	close(f.end)
	close(a.end) // two users have waited: user 1's request runs, and then user 2's
	f = next()
	none()
	// One of the running requests waits for others.
	back := make(chan struct{})
	var wg sync.WaitGroup
	wg.Add(1)
	go func() {
		defer wg.Done()
		d.slot.Wait(func() { <-back })
	}()
	g := next()
	close(back)
	wg.Wait()
	for _, x := range []begun{b, c, d, f, g} {
		close(x.end)
	}
	for { // the remaining requests
		s.mu.Lock()
		left := len(s.users)
		s.mu.Unlock()
		if left == 0 {
			break
		}
		select {
		case x := <-began:
			close(x.end)
		case <-time.After(time.Millisecond):
		}
	}
	if s.running != 0 || len(s.turn) != 0 {
		t.Errorf("%d run and %d users wait at the end", s.running, len(s.turn))
	}
	var uncounted *Slot
	called := false
	uncounted.Wait(func() { called = true })
	if !called {
		t.Error("Wait of no slot called nothing")
	}
}
