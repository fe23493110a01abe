package fsck

// ordered looks at items 0..n-1 in workers goroutines and judges them in their order on the
// caller's. What look does must not depend on what judge does to another item, so all that
// is said and mended is the same whatever the number of workers. At most 4 items a worker
// are looked at and not yet judged.
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
	done := make([]chan T, window) // item i comes by the one of i modulo window
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

// batches cuts n things into pieces of size and is ordered for them.
func batches[T any](workers, n, size int, look func(lo, hi int) T, judge func(lo int, v T)) {
	ordered(workers, (n+size-1)/size,
		func(i int) T { return look(i*size, min(n, (i+1)*size)) },
		func(i int, v T) { judge(i*size, v) })
}
