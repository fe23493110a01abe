package kept

import (
	"sync"
	"testing"
	"time"
)

// TestValue checks that among many callers one at a time computes the value, rarely, and that the
// others do not wait.
func TestValue(t *testing.T) {
	k := Value[int]{Times: 20}
	n := 0
	find := func() int {
		time.Sleep(10 * time.Millisecond)
		n++
		return n
	}
	var wg sync.WaitGroup
	for range 10 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			if got := k.Get(find); got != 1 {
				t.Errorf("the first value is %d", got)
			}
		}()
	}
	wg.Wait()
	old := k.last.Load()
	k.last.Store(&found[int]{v: old.v}) // has expired
	begun, end := make(chan struct{}), make(chan struct{})
	got := make(chan int)
	go func() {
		got <- k.Get(func() int {
			close(begun)
			<-end
			return 2
		})
	}()
	<-begun
	if v := k.Get(find); v != 1 {
		t.Errorf("during a computation the value is %d, expected the old one", v)
	}
	close(end)
	if v := <-got; v != 2 {
		t.Errorf("the caller that computes gets %d, expected 2", v)
	}
}
