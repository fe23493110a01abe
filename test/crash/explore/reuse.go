package explore

import (
	"fmt"
	"syscall"

	"github.com/daxfsd/daxfsd/fs"
	"github.com/daxfsd/daxfsd/fs/layout"
)

// twoHandles changes one file through two handles, on two lanes, while it has a name and when it
// has none, and then drops the last reference.
func twoHandles(w *world) {
	n := w.at("d/g")
	w.doWrite("write", "d/g", 200, fill(91, 5000))
	w.ctx.Lane = 1
	w.do("truncate", func() { w.truncate("d/g", 100) })
	w.ctx.Lane = 0
	w.doWrite("write", "d/g", 9000, fill(92, 5000))
	w.ctx.Lane = 1
	w.do("unlink", func() { w.unlink("d/g") })
	var a fs.Attr
	nameless := func(name string, lane uint32, op func() syscall.Errno) {
		w.ctx.Lane = lane
		w.do(name, func() { must(name, op()) })
	}
	write := func() syscall.Errno {
		_, e := w.f.Write(&w.ctx, n.ino, 20000, fill(93, 5000))
		return e
	}
	nameless("write", 0, write)
	nameless("truncate", 1, func() syscall.Errno {
		return w.f.SetAttr(&w.ctx, n.ino, &fs.SetAttr{Valid: fs.SetSize, Size: 3}, &a)
	})
	nameless("write", 0, write)
	w.do("forget", func() { w.forget(n) })
}

// reused returns a workload whose op frees the last block of a metadata chunk, which then becomes
// data. Records of another lane with lines of that chunk must not be replayed over the data.
func reused(name string, setup, op func(w *world)) Workload {
	name += "-and-reuse"
	var block uint64 // first block of the chunk
	return Workload{
		Name:  name,
		setup: func(w *world) { block = lastChunk(w, setup) },
		op: func(w *world) {
			w.ctx.Lane = 1
			chunks := len(w.chunks())
			w.do(name, func() { op(w) })
			can(len(w.chunks()) == chunks-1, "%s gives no chunk back", name)
			writeAt(w, block)
		},
	}
}

// reusedAfterCrash returns a workload of a mount after a crash between the transaction that turns a
// chunk into data and the checkpoint of the lanes, whose records still have lines of the chunk. The
// chunk is then used for data.
func reusedAfterCrash() Workload {
	var block uint64
	return Workload{
		Name: "mount-and-reuse",
		setup: func(w *world) {
			block = lastChunk(w, func(w *world) { w.mkdir("d/more"); w.create("d/more/x") })
			w.ctx.Lane = 1
			w.cut(func() { w.unlink("d/more/x") }, func(log []event, i int) bool {
				return i+1 < len(log) && log[i+1].kind == evStore && log[i+1].n == lineSize && lanes().has(log[i+1].off)
			})
		},
		op: func(w *world) {
			w.do("mount after a crash", w.mount)
			writeAt(w, block)
		},
	}
}

// lastChunk makes a tree in which setup takes a metadata chunk of its own. It returns that chunk's
// first block.
func lastChunk(w *world, setup func(w *world)) (block uint64) {
	tree(w)
	w.create(filler)
	fillChunk(w)
	before := w.chunks()
	setup(w)
	for c := range w.chunks() {
		if !before[c] {
			block = c * uint64(w.f.Super().ChunkBlocks())
		}
	}
	return block
}

// writeAt gives the free chunk that begins at block to the filler, and writes data there.
func writeAt(w *world, block uint64) {
	const high, much, piece = 4 << 20, 14 << 20, 32768
	w.fallocate(filler, keep, high, much) // so that the remaining free blocks get low file offsets
	at := int64(-1)
	for off := int64(0); at < 0; off += piece {
		w.fallocate(filler, keep, off, piece)
		w.f.Extents(&w.ctx, w.at(filler).ino, 0, func(x fs.ExtentInfo) bool {
			if x.Block <= block && block < x.Block+x.Len {
				at = int64(x.Logical+block-x.Block) << 12
			}
			return at < 0
		})
	}
	w.doWrite("write", filler, at, fill(84, piece))
	w.fallocate(filler, punch, high, much)
}

func reusedByForget() Workload {
	var n *node
	return reused("forget", func(w *world) {
		fragmented(w, "frag", 4)
		n = w.at("frag")
		n.open = true
		w.unlink("frag")
	}, func(w *world) { w.forget(n) })
}

// chunks returns the set of metadata chunks.
func (w *world) chunks() map[uint64]bool {
	sb, cs := w.f.Super(), map[uint64]bool{}
	for c := range sb.Size >> sb.ChunkShift {
		i, bit := layout.ChunkMapPos(c)
		if l := (*layout.Line)(w.r.Bytes(sb.ChunkMapOff+i*lineSize, lineSize)); l.ChunkBit(bit) {
			cs[uint64(c)] = true
		}
	}
	return cs
}

// many creates n files named 0, 1, ... in a directory.
func many(w *world, dir string, n int) {
	for i := 0; i < n; i++ {
		w.create(fmt.Sprintf("%s/%d", dir, i))
	}
}

// fillInodes creates files in dir until no free inode slot is left.
func fillInodes(w *world, dir string) {
	for i := 0; w.freeSlots() > 0; i++ {
		w.create(fmt.Sprintf("%s/slot%d", dir, i))
	}
}

// fillChunk creates directories and files until no metadata block is free. Then hardly any inode
// slot is free.
func fillChunk(w *world) {
	for i := 0; w.f.Stats().FreeMetaBlocks > 0; i++ {
		w.mkdir(fmt.Sprintf("e/fill%d", i))
		w.create(fmt.Sprintf("e/fill%d/x", i))
	}
}

// freeSlots returns the number of free inode slots in existing inode blocks.
func (w *world) freeSlots() uint64 {
	var s fs.StatFS
	w.f.StatFS(&s)
	return s.Ffree - s.Bfree*16
}
