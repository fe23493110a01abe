package explore

import "fmt"

// filler is the name of the file that takes all space.
const filler = "filler"

// fillUp takes all space for data except n blocks; with meta, also all space for metadata.
func fillUp(w *world, n int64, meta bool) {
	w.create(filler)
	off := int64(0)
	for step := int64(regionSize); step >= 4096; {
		if w.noSpace(func() { w.fallocate(filler, keep, off, step) }) {
			step /= 2
		} else {
			off += step
		}
	}
	if meta {
		w.mkdir("many")
		for i := 0; ; i++ {
			name := fmt.Sprintf("many/%d", i)
			if w.noSpace(func() { w.mkdir(name) }) || w.noSpace(func() { w.create(name + "/x") }) {
				break
			}
		}
	}
	if n > 0 {
		w.fallocate(filler, punch, off-n*4096, n*4096)
	}
}

// whenFull returns all actions on a filesystem that has little or no space left. A refused action
// must have no effect. A write that is cut short must be whole as far as it goes.
func whenFull() (ws []Workload) {
	acts := append(actions(),
		action{kind: "append", name: "append f, 40000 bytes", writes: "f", do: func(w *world) { w.write("f", 10000, fill(61, 40000)) }},
		action{kind: "fallocate", name: "fallocate e/h, 40960 bytes", writes: "", do: func(w *world) { w.fallocate("e/h", keep, 0, 40960) }},
		action{kind: "symlink", name: "symlink d/new, long", writes: "", do: func(w *world) { w.symlink("d/new", string(fill(62, 900))) }},
		action{kind: "write", name: "write e/h into unwritten", writes: "e/h", do: func(w *world) { w.write("e/h", 4096, fill(63, 100)) }},
	)
	for _, a := range acts {
		// left < 0: no data block is free, and -1-left metadata blocks are.
		for _, left := range []int64{-3, -2, -1, 0, 1, 3} {
			name := fmt.Sprintf("%s, with %d blocks left", a.name, max(0, left))
			if left < 0 {
				name = fmt.Sprintf("%s, with %d metadata blocks left", a.name, -1-left)
			}
			ws = append(ws, Workload{Name: name, bare: true, setup: func(w *world) {
				tree(w)
				need(w, a)
				if a.kind == "removexattr" {
					w.setxattr("f", "user.a", []byte("value"))
				}
				if a.kind == "write" {
					w.fallocate("e/h", keep, 0, 16384)
				}
				fillUp(w, max(0, left), left < 0)
				for i := range -1 - left { // a directory that loses its only entry frees its block
					w.unlink(fmt.Sprintf("many/%d/x", i))
				}
			}, op: func(w *world) {
				w.full = true
				w.do(a.name, func() { w.noSpace(func() { a.do(w) }) })
				if a.writes != "" {
					w.torn(a.writes)
				}
				w.steps[len(w.steps)-1].full = true
			}})
		}
	}
	return ws
}
