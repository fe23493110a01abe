package explore

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"syscall"

	"github.com/daxfsd/daxfsd/fs"
	"github.com/daxfsd/daxfsd/pmem"
)

// Workload is one operation on a prepared tree.
type Workload struct {
	Name  string
	setup func(w *world)
	op    func(w *world)
	bare  bool // do not run follow after op

	atomic   bool // mounted with Options.Atomic: each write is all or nothing
	direct   bool // mounted with Options.Direct
	composed bool // composed of operations that other workloads have alone
}

// tree makes the tree that most workloads begin with: files and directories at two levels, a hard
// link, a symbolic link, a fifo.
//
// The space that it takes held another file's data before. So bytes that are shown before they are
// written, or that are never zeroed, are not zero by luck.
func tree(w *world) {
	w.create("junk")
	for i := int64(0); i < 100; i++ { // in small pieces, so that it gets blocks where small files go
		w.write("junk", i*4096, bytes.Repeat([]byte("JUNK"), 1024))
	}
	w.unlink("junk")
	w.mkdir("d")
	w.mkdir("e")
	w.mkdir("d/sub")
	w.mkdir("empty")
	w.create("f")
	w.write("f", 0, fill(1, 12000)) // so that the bytes beyond the end are not zero either
	w.truncate("f", 10000)
	w.create("d/g")
	w.write("d/g", 0, fill(2, 4096))
	w.truncate("d/g", 300)
	w.create("e/h")
	w.link("f", "e/f2")
	w.symlink("s", "d/g")
	w.mknod("p", syscall.S_IFIFO|0o600, 0)
	w.create("other") // the file that follow changes
}

// fragmented makes path a file of n extents: every second block, so that no extent joins its
// neighbour.
func fragmented(w *world, path string, n int) {
	w.create(path)
	for i := 0; i < n; i++ {
		w.write(path, int64(i)*8192, fill(100+i, 16))
	}
}

// follow runs a few small transactions after the operation: lines that the operation left unflushed
// must survive while the journal's slots are used again.
func follow(w *world) {
	if w.root.kids["other"] == nil {
		w.do("then create", func() { w.create("other") })
	}
	w.doWrite("then write", "other", 0, fill(3, 40000)) // over freed blocks
	for i, m := range []uint32{0o600, 0o640} {
		w.do(fmt.Sprintf("then chmod %d", i), func() { w.chmod("other", m) })
	}
}

// one returns a workload of a single call.
func one(name string, op func(w *world)) Workload {
	return Workload{Name: name, setup: tree, op: func(w *world) { w.do(name, func() { op(w) }) }}
}

// with returns a workload of a single call after a further set-up.
func with(name string, setup, op func(w *world)) Workload {
	return Workload{Name: name, setup: func(w *world) { tree(w); setup(w) }, op: func(w *world) { w.do(name, func() { op(w) }) }}
}

func write(name, path string, off int64, n int) Workload {
	return Workload{Name: name, setup: tree, op: func(w *world) { w.doWrite(name, path, off, fill(77, n)) }}
}

// singles returns the workloads of single operations.
func singles() []Workload {
	long := strings.Repeat("n", 255)
	list := []Workload{
		one("create", func(w *world) { w.create("d/new") }),
		one("create-long-name", func(w *world) { w.create("d/" + long) }),
		one("mkdir", func(w *world) { w.mkdir("d/newdir") }),
		one("mkdir-long-name", func(w *world) { w.mkdir(long) }),
		one("mknod-fifo", func(w *world) { w.mknod("d/fifo", syscall.S_IFIFO|0o644, 0) }),
		one("mknod-device", func(w *world) { w.mknod("d/dev", syscall.S_IFCHR|0o600, 0x103) }),
		one("symlink-short", func(w *world) { w.symlink("d/ln", "../f") }),
		one("symlink-inline-full", func(w *world) { w.symlink("d/ln", strings.Repeat("t", 52)) }),
		one("symlink-long", func(w *world) { w.symlink("d/ln", strings.Repeat("t", 500)) }),
		one("link", func(w *world) { w.link("d/g", "e/g2") }),
		one("link-long-name", func(w *world) { w.link("d/g", "e/"+long) }),
		one("unlink", func(w *world) { w.unlink("d/g") }),
		one("unlink-one-of-two", func(w *world) { w.unlink("e/f2") }),
		one("unlink-symlink", func(w *world) { w.unlink("s") }),
		one("unlink-fifo", func(w *world) { w.unlink("p") }),
		with("unlink-long-symlink", func(w *world) { w.symlink("d/ln", strings.Repeat("t", 500)) }, func(w *world) { w.unlink("d/ln") }),
		with("unlink-long-name", func(w *world) { w.create("d/" + long) }, func(w *world) { w.unlink("d/" + long) }),
		with("unlink-open", func(w *world) { w.at("d/g").open = true }, func(w *world) { w.unlink("d/g") }),
		orphan("forget", tree),
		orphan("forget-fragmented", func(w *world) { tree(w); w.unlink("d/g"); fragmented(w, "d/g", 140) }),
		one("rmdir", func(w *world) { w.rmdir("empty") }),
		with("rmdir-grown", func(w *world) { w.create("empty/x"); w.unlink("empty/x") }, func(w *world) { w.rmdir("empty") }),

		one("rename", func(w *world) { w.rename("f", "f1", 0) }),
		one("rename-long-name", func(w *world) { w.rename("f", long, 0) }),
		one("rename-over-file", func(w *world) { w.rename("d/g", "e/h", 0) }),
		one("rename-over-linked", func(w *world) { w.rename("d/g", "f", 0) }),
		one("rename-over-empty-dir", func(w *world) { w.rename("d/sub", "empty", 0) }),
		one("rename-across", func(w *world) { w.rename("d/g", "e/g", 0) }),
		one("rename-dir", func(w *world) { w.rename("empty", "empty1", 0) }),
		one("rename-dir-across", func(w *world) { w.rename("d/sub", "e/sub", 0) }),
		one("rename-exchange", func(w *world) { w.rename("f", "d", fs.RenameExchange) }),
		one("rename-exchange-across", func(w *world) { w.rename("d/sub", "e/h", fs.RenameExchange) }),
		one("rename-noreplace", func(w *world) { w.rename("f", "e/f3", fs.RenameNoReplace) }),
		one("rename-whiteout", func(w *world) { w.rename("f", "f1", fs.RenameWhiteout) }),
		one("rename-whiteout-over-file", func(w *world) { w.rename("d/g", "e/h", fs.RenameWhiteout) }),
		one("rename-whiteout-dir-across", func(w *world) { w.rename("d/sub", "e/sub", fs.RenameWhiteout|fs.RenameNoReplace) }),
		with("rename-whiteout-inode-block", func(w *world) { fillInodes(w, "e") }, func(w *world) { w.rename("d/g", "d/g2", fs.RenameWhiteout) }),
		one("rename-same-inode", func(w *world) { w.rename("f", "e/f2", 0) }),
		with("rename-last-of-dir", func(w *world) { w.create("empty/x") }, func(w *world) { w.rename("empty/x", "e/x", 0) }),

		one("chmod", func(w *world) { w.chmod("f", 0o4711) }),
		one("chown", func(w *world) { w.setattr("d/g", fs.SetAttr{Valid: fs.SetUID | fs.SetGID, UID: 7, GID: 8}) }),
		one("utimens", func(w *world) { w.setattr("f", fs.SetAttr{Valid: fs.SetAtime | fs.SetMtime, Atime: 5, Mtime: 6}) }),
		one("chmod-dir", func(w *world) { w.chmod("d", 0o1777) }),

		one("truncate-down", func(w *world) { w.truncate("f", 4096) }),
		one("truncate-mid-block", func(w *world) { w.truncate("f", 5000) }),
		one("truncate-zero", func(w *world) { w.truncate("f", 0) }),
		one("truncate-up", func(w *world) { w.truncate("f", 50001) }),
		one("truncate-up-same-block", func(w *world) { w.truncate("d/g", 3000) }),
		one("truncate-same", func(w *world) { w.truncate("f", 10000) }),
		with("truncate-down-up", func(w *world) { w.truncate("f", 100) }, func(w *world) { w.truncate("f", 9000) }),
		with("truncate-fragmented", func(w *world) { fragmented(w, "frag", 300) }, func(w *world) { w.truncate("frag", 5) }),

		write("write-new", "e/h", 0, 100),
		with("write-4KiB-append", func(w *world) { w.create("d/a"); w.write("d/a", 0, fill(74, 4096)) },
			func(w *world) { w.write("d/a", 4096, fill(75, 4096)) }),
		write("write-append", "f", 10000, 5000),
		write("write-append-same-block", "d/g", 300, 100),
		write("write-append-large", "f", 10000, 40000),
		write("write-overwrite", "f", 100, 6000),
		write("write-4KiB-overwrite", "f", 4096, 4096),
		write("write-overwrite-and-append", "f", 8000, 8000),
		write("write-beyond-eof", "f", 30000, 100),
		write("write-beyond-eof-same-block", "d/g", 1000, 50),
		write("write-1MiB", "e/h", 0, 1<<20),
		write("write-1MiB-unaligned", "e/h", 4001, 1<<20),
		{Name: "write-into-hole", setup: func(w *world) { tree(w); w.truncate("f", 60000) },
			op: func(w *world) { w.doWrite("write-into-hole", "f", 20001, fill(78, 9000)) }},
		{Name: "write-over-holes-and-data", setup: func(w *world) { tree(w); fragmented(w, "frag", 20) },
			op: func(w *world) { w.doWrite("write-over-holes-and-data", "frag", 1000, fill(79, 100000)) }},
		{Name: "write-after-truncate", setup: func(w *world) { tree(w); w.truncate("f", 5001) },
			op: func(w *world) { w.doWrite("write-after-truncate", "f", 6001, fill(80, 500)) }},
		{Name: "write-many-pieces", setup: func(w *world) { tree(w); fragmented(w, "frag", 60) },
			op: func(w *world) { w.doWrite("write-many-pieces", "frag", 0, fill(81, 60*8192)) }},
		{Name: "write-extent-block", setup: func(w *world) { tree(w); fragmented(w, "frag", 2) },
			op: func(w *world) { w.doWrite("write-extent-block", "frag", 2*8192, fill(82, 16)) }},
		{Name: "write-extent-block-second", setup: func(w *world) { tree(w); fragmented(w, "frag", 128) },
			op: func(w *world) { w.doWrite("write-extent-block-second", "frag", 128*8192, fill(83, 16)) }},

		with("create-first-block", func(w *world) {}, func(w *world) { w.create("empty/x") }),
		with("create-grow-dir", func(w *world) { many(w, "empty", 64) }, func(w *world) { w.create("empty/one-more") }),
		with("unlink-shrink-dir", func(w *world) { many(w, "empty", 65) }, func(w *world) { w.unlink("empty/64") }),
		with("unlink-hole-in-dir", func(w *world) {
			many(w, "empty", 129)
			for i := 65; i < 128; i++ {
				w.unlink(fmt.Sprintf("empty/%d", i))
			}
		}, func(w *world) { w.unlink("empty/64") }),
		with("unlink-last-entry", func(w *world) { w.create("empty/x") }, func(w *world) { w.unlink("empty/x") }),
		with("create-inode-block", func(w *world) { fillInodes(w, "e") }, func(w *world) { w.create("d/one-more") }),
		with("unlink-inode-block", func(w *world) { fillInodes(w, "e"); w.create("d/one-more") }, func(w *world) { w.unlink("d/one-more") }),
		{Name: "chunk", setup: func(w *world) { tree(w); fillChunk(w) }, op: func(w *world) {
			w.do("mkdir", func() { w.mkdir("d/more") })
			w.do("create", func() { w.create("d/more/x") })
			w.do("create", func() { w.create("d/more/y") })
		}},
		{Name: "chunk-given-back", setup: func(w *world) { tree(w); many(w, "empty", 700) }, op: func(w *world) {
			back := chunkUnlinks()
			for i := 699; i >= 0; i-- {
				name := fmt.Sprintf("empty/%d", i)
				if back[i] {
					w.do("unlink "+name, func() { w.unlink(name) })
				} else {
					w.unlink(name)
				}
			}
		}},
		{Name: "chunk-to-data", setup: func(w *world) { tree(w); many(w, "empty", 700) }, op: func(w *world) {
			for i := 699; i >= 0; i-- {
				w.unlink(fmt.Sprintf("empty/%d", i))
			}
			w.doWrite("write", "e/h", 0, fill(84, 600000))
			w.doWrite("again", "e/h", 600000, fill(85, 300000))
		}},
		reused("unlink", func(w *world) { w.mkdir("d/more"); w.create("d/more/x") }, func(w *world) { w.unlink("d/more/x") }),
		reused("rename", func(w *world) { w.mkdir("d/more"); w.create("d/more/x") }, func(w *world) { w.rename("d/more/x", "moved", 0) }),
		reused("rmdir", func(w *world) { fillInodes(w, "d"); w.mkdir("d/last") }, func(w *world) { w.rmdir("d/last") }),
		reused("rmdir-of-parent-block", func(w *world) { w.mkdir("d/more"); w.mkdir("d/more/in") }, func(w *world) { w.rmdir("d/more/in") }),
		reused("removexattr", func(w *world) { // the last records have lines in this chunk
			fillInodes(w, "d")
			w.create("d/last")
			w.setxattr("f", "user.a", fill(1, 10))
			w.unlink("d/last")
		}, func(w *world) { w.removexattr("f", "user.a") }),
		reused("setxattr", func(w *world) {
			fillInodes(w, "d")
			w.create("d/last")
			w.setxattr("f", aclAccess, aclOf(1))
			w.adopt("f")
			w.unlink("d/last")
		}, func(w *world) { w.setxattr("f", aclAccess, aclOf(0)); w.adopt("f") }),
		reused("truncate", func(w *world) { fragmented(w, "frag", 4) }, func(w *world) { w.truncate("frag", 0) }),
		reused("punch", func(w *world) { fragmented(w, "frag", 4) }, func(w *world) { w.fallocate("frag", fs.FallocPunchHole|fs.FallocKeepSize, 0, 40000) }),
		reused("unlink-fragmented", func(w *world) { fragmented(w, "frag", 4) }, func(w *world) { w.unlink("frag") }),
		reusedByForget(),
		reusedAfterCrash(),
		with("unlink-last-of-chunk", func(w *world) { // while other chunks have room, so that nothing uses this chunk again
			fillChunk(w)
			w.mkdir("d/more")
			w.create("d/more/x")
			w.rename("e/h", "h", 0)
			w.rename("e/f2", "f2", 0)
		}, func(w *world) { w.unlink("d/more/x") }),
		{Name: "reuse", setup: tree, op: func(w *world) {
			w.do("unlink", func() { w.unlink("d/g") })
			w.do("create", func() { w.create("e/new") })
			w.doWrite("write", "e/new", 0, fill(86, 300))
			w.do("rmdir", func() { w.rmdir("d/sub") })
			w.do("mkdir", func() { w.mkdir("e/sub2") })
			w.do("create in it", func() { w.create("e/sub2/x") })
		}},
		{Name: "lanes", setup: tree, op: func(w *world) {
			for i := uint32(0); i < 6; i++ {
				w.ctx.Lane = i
				w.do(fmt.Sprintf("chmod on lane %d", i%2), func() { w.chmod("f", 0o600+i) })
				w.do(fmt.Sprintf("create on lane %d", i%2), func() { w.create(fmt.Sprintf("d/lane%d", i)) })
			}
			for i := uint32(0); i < 5; i++ { // one lane is idle while the other is used
				w.ctx.Lane = 1
				w.do("unlink on lane 1", func() { w.unlink(fmt.Sprintf("d/lane%d", i)) })
			}
			w.ctx.Lane = 0
			w.do("chmod on lane 0", func() { w.chmod("f", 0o777) })
		}},
		{Name: "flush-times", setup: tree, op: func(w *world) {
			w.doWrite("write", "f", 0, fill(87, 10))
			w.do("release", func() { must("release", w.f.Release(&w.ctx, w.at("f").ino, 0)) })
			first := w.mtime("f")
			w.promise("f", first)
			w.doWrite("write again", "f", 0, fill(88, 10))
			w.do("fsync", func() { must("fsync", w.f.Fsync(&w.ctx, w.at("f").ino, false)) })
			w.promise("f", w.mtime("f"))
			w.steps[len(w.steps)-1].old.kids["f"].mtimes = []int64{first, w.mtime("f")}
		}},
		{Name: "fsync-times", setup: tree, op: func(w *world) { // the times become durable for the first time
			w.write("f", 0, fill(87, 10))
			mtime := w.mtime("f")
			w.do("fsync", func() { must("fsync", w.f.Fsync(&w.ctx, w.at("f").ino, false)) })
			w.promise("f", mtime)
		}},
		forgetMany(),
		{Name: "forget-named", setup: tree, op: func(w *world) { // a forgotten inode is read from the media again
			w.write("f", 0, fill(87, 10))
			mtime := w.mtime("f")
			w.do("forget", func() { w.forget(w.at("f")) })
			w.promise("f", mtime)
		}},
		{Name: "two-handles", setup: func(w *world) { tree(w); w.at("d/g").open = true }, op: twoHandles},
		{Name: "unmount", setup: tree, bare: true, op: func(w *world) {
			w.write("f", 0, fill(89, 10))
			mtime := w.mtime("f")
			w.doUnmount()
			w.promise("f", mtime)
		}},
		{Name: "mount-clean", setup: func(w *world) { tree(w); w.unmount() }, op: func(w *world) { w.do("mount", w.mount) }},
		{Name: "mount-dirty", setup: func(w *world) {
			tree(w)
			w.at("d/g").open = true
			w.unlink("d/g")
			w.ctx.Lane = 1
			w.create("d/last")
			w.crash()
		}, op: func(w *world) { w.do("mount after a crash", w.mount) }},
		{Name: "mkfs", setup: func(w *world) { tree(w); w.unmount() }, op: func(w *world) {
			w.do("mkfs", w.format)
			w.steps[len(w.steps)-1].format = true
			w.do("mount", w.mount)
		}},
		{Name: "mkfs-over-dirty", setup: func(w *world) { tree(w); w.crash() }, bare: true, op: func(w *world) {
			w.do("mkfs", w.format)
			w.steps[len(w.steps)-1].format = true
		}},
	}
	for n := 1; n <= 7; n++ {
		list = append(list, write(fmt.Sprintf("write-%d-at-60", n), "f", 60, n))
	}
	return slices.Concat(list, borders(), privileges(), allocationWorkloads(), freeMaps(), badWorkloads(), grants(), promotions())
}

// orphan returns a workload that drops the last reference to an unlinked file.
func orphan(name string, setup func(w *world)) Workload {
	var n *node
	return Workload{Name: name, setup: func(w *world) {
		setup(w)
		n = w.at("d/g")
		n.open = true
		w.unlink("d/g")
	}, op: func(w *world) { w.do(name, func() { w.forget(n) }) }}
}

// forgetMany returns a workload that drops the last references to several unlinked files. The
// records of the last overwrite those of the first.
func forgetMany() Workload {
	var ns []*node
	return Workload{Name: "forget-many", setup: func(w *world) {
		tree(w)
		ns = ns[:0]
		for i := range 6 {
			name := fmt.Sprintf("e/open%d", i)
			w.create(name)
			w.write(name, 0, fill(i, 5000))
			n := w.at(name)
			n.open = true
			ns = append(ns, n)
		}
		for i := range ns {
			w.unlink(fmt.Sprintf("e/open%d", i))
		}
	}, op: func(w *world) {
		for _, n := range ns {
			w.do("forget", func() { w.forget(n) })
		}
	}}
}

// chunkUnlinks returns the unlinks of the workload chunk-given-back that free a metadata chunk. It
// finds them by doing them all.
func chunkUnlinks() map[int]bool {
	r, err := pmem.NewMemory(regionSize)
	if err != nil {
		panic(err)
	}
	defer r.Close()
	w := &world{r: r, rec: &recorder{}}
	w.format()
	w.mount()
	tree(w)
	many(w, "empty", 700)
	back := map[int]bool{}
	for i := 699; i >= 0; i-- {
		n := w.f.Stats().MetaChunks
		w.unlink(fmt.Sprintf("empty/%d", i))
		back[i] = w.f.Stats().MetaChunks < n
	}
	w.unmount()
	return back
}
