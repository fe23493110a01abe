package fsck

// ordered calls look for the items 0..n-1 on the given number of worker goroutines, and judge for
// them in order on the caller's goroutine. look must not depend on what judge does for other items,
// so that reports and repairs do not depend on the number of workers. At most 4 items per worker
// are looked at but not judged.
func ordered[T any](workers, n int, look func(i int) T, judge func(i int, v T)) {
	if workers = min(workers, n); workers <= 1 {
		for i := range n {
			judge(i, look(i))
		}
		return
	}
	window := 4 * workers
	todo := make(chan int, window)
	defer close(todo)
	done := make([]chan T, window) // item i is sent over channel i modulo window
	for i := range done {
		done[i] = make(chan T, 1)
	}
	for range workers {
		go func() {
			for i := range todo {
				done[i%window] <- look(i)
			}
		}()
	}
	next := 0
	for i := range n {
		for ; next < min(n, i+window); next++ {
			todo <- next
		}
		judge(i, <-done[i%window])
	}
}

// batches divides n things into batches of size, and calls ordered for the batches.
func batches[T any](workers, n, size int, look func(lo, hi int) T, judge func(lo int, v T)) {
	ordered(workers, (n+size-1)/size,
		func(i int) T { return look(i*size, min(n, (i+1)*size)) },
		func(i int, v T) { judge(i*size, v) })
}
