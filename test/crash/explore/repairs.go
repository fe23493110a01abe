package explore

import (
	"bytes"
	"fmt"
	"runtime"
	"syscall"

	"github.com/daxfsd/daxfsd/fs"
	"github.com/daxfsd/daxfsd/fs/fsck"
	"github.com/daxfsd/daxfsd/fs/layout"
)

// damage changes the line at byte off with f and makes the change durable.
func (w *world) damage(off int64, f func(l *layout.Line)) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var l layout.Line
	err := w.r.LoadLine(off, (*[lineSize]byte)(&l))
	if err == nil {
		f(&l)
		err = w.r.Store(off, l[:])
	}
	if err == nil {
		err = w.r.Flush(off, lineSize)
	}
	if err != nil {
		panic(err)
	}
	w.r.Fence()
}

func smash(l *layout.Line) { l[20] ^= 0x55 }

// super returns the superblock.
func (w *world) super() *layout.Superblock {
	sb, _, err := fs.ReadSuper(w.r)
	if err != nil {
		panic(err)
	}
	return sb
}

// core changes the core line of an inode and seals it again: wrong content with a right checksum.
func (w *world) core(ino uint64, f func(c *layout.Core)) {
	sb := w.super()
	off := sb.InodeOff(ino)
	w.damage(off, func(l *layout.Line) {
		var c layout.Core
		c.Get(l)
		f(&c)
		c.Put(l)
		l.Seal(layout.Seed(sb.UUID), off, l.Seq())
	})
}

// dentry returns the byte offset of a name's head line. It searches the whole region.
func (w *world) dentry(name string) int64 {
	sb := w.super()
	for off := sb.StaticEnd; off < sb.Size; off += lineSize {
		l := (*layout.Line)(w.r.Bytes(off, lineSize))
		if l.Valid(layout.Seed(sb.UUID), off) && l.DentryKind() == layout.DentryHead && l.DentryNameLen() == len(name) && string(l.NamePart(0, len(name))) == name {
			return off
		}
	}
	panic("no dentry " + name)
}

// where returns p without its descriptive fields, so that equal problems compare equal.
func where(p fsck.Problem) fsck.Problem {
	p.What, p.Path, p.Fixed, p.Fixable = "", "", false, false
	return p
}

// repairs returns workloads that run fsck -y on damaged filesystems. After a crash within fsck -y,
// a second fsck -y must give the same filesystem as one that was not crashed.
func repairs() []Workload {
	repairOf := func(name string, setup, harm func(w *world)) Workload {
		return Workload{Name: "fsck " + name, bare: true, setup: func(w *world) {
			tree(w)
			setup(w)
			w.unmount()
			harm(w)
		}, op: func(w *world) {
			damage := map[fsck.Problem]bool{}
			w.do("fsck -y", func() {
				rep, err := fsck.Check(w.r, fsck.Options{Repair: true})
				if err != nil || rep.Left > 0 || rep.Repaired == 0 {
					panic(fmt.Sprintf("fsck -y: %v, %+v", err, rep))
				}
				for _, problem := range rep.Problems { // includes problems that only show once others are repaired
					damage[where(problem)] = true
				}
			})
			last := &w.steps[len(w.steps)-1]
			last.repair, last.damage, last.equal, last.old = true, damage, true, last.new
		}}
	}
	repair := func(name string, harm func(w *world)) Workload { return repairOf(name, none, harm) }
	// lost moves d/g to lost+found in the model.
	lost := func(w *world) {
		dir, n := w.at("d"), w.at("d/g")
		delete(dir.kids, "g")
		w.root.kids["lost+found"] = &node{mode: syscall.S_IFDIR | 0o700, nlink: 2, kids: map[string]*node{fmt.Sprintf("#%d", n.ino): n}}
		w.root.nlink++
	}
	// junk fills all free space with bytes that are not zero, and frees it again.
	junk := func(w *world) {
		w.create("junk")
		w.full = true
		for off := int64(0); w.f.Stats().AvailableBlocks > 0; off += 1 << 20 {
			if w.noSpace(func() { w.write("junk", off, bytes.Repeat([]byte("JUNK"), 1<<18)) }) {
				break
			}
		}
		w.full = false
		w.unlink("junk")
	}
	ino := func(w *world, name string) uint64 { return w.root.kids[name].ino }
	return []Workload{
		repair("link count", func(w *world) { w.core(ino(w, "f"), func(core *layout.Core) { core.Nlink = 7 }) }),
		repair("lost name", func(w *world) { w.damage(w.dentry("g"), smash); lost(w) }),
		repairOf("lost name, no inode free", func(w *world) { junk(w); fillChunk(w); fillInodes(w, "d"); w.create("d/last") },
			func(w *world) { w.damage(w.dentry("g"), smash); lost(w) }),
		repairOf("lost name, no metadata free", func(w *world) { junk(w); fillChunk(w); fillInodes(w, "d") },
			func(w *world) { w.damage(w.dentry("g"), smash); lost(w) }),
		repair("free map", func(w *world) { w.damage(int64(w.savedMap().Block)<<layout.BlockShift+lineSize, smash) }),
		repair("superblock", func(w *world) { w.damage(0, smash) }),
		repair("second superblock", func(w *world) { w.damage(w.super().BackupOff, smash) }),
		repair("link counts of directories", func(w *world) {
			w.core(ino(w, "d"), func(core *layout.Core) { core.Nlink = 9 })
			w.core(ino(w, "e"), func(core *layout.Core) { core.Nlink = 1 })
			w.core(layout.RootIno, func(core *layout.Core) { core.Nlink = 77 })
		}),
		repair("several", func(w *world) {
			w.damage(0, smash)
			w.core(ino(w, "f"), func(core *layout.Core) { core.Nlink = 1 })
			w.damage(w.dentry("g"), smash)
			lost(w)
		}),
	}
}
