package explore

import (
	"bytes"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"syscall"

	"github.com/daxfsd/daxfsd/fs"
	"github.com/daxfsd/daxfsd/fs/fsck"
	"github.com/daxfsd/daxfsd/fs/layout"
	"github.com/daxfsd/daxfsd/pmem"
)

// judge judges one crash state.
type judge struct {
	r         *pmem.Region
	step      *step
	may       outcome // trees to compare with
	deleteAll bool
	returned  bool // the operation had returned before the crash
	// mounted is called when recovery is done. It returns the outcome if this recovered image was
	// judged before, else 0.
	mounted func() outcome

	unclean bool // the crash image is not marked clean

	f   *fs.FS
	ctx fs.Caller
	now int64
}

// run recovers the region and returns the outcome, or why the state is wrong. The state is right
// if:
//
//	(a) fsck finds nothing in the crash image
//	(b) the real recovery mounts it
//	(c) the whole tree is that of before, or of after, or of a write under way
//	(d) it is usable: create, write, read, delete in every directory; free space
//	    returns to what it was
//	(e) after a clean unmount fsck finds nothing and counts the same free blocks
func (j *judge) run() (result verdict) {
	defer func() {
		if panicked := recover(); panicked != nil {
			result = verdict{why: fmt.Sprintf("panic: %v\n%s", panicked, debug.Stack())}
		}
	}()
	if j.step.repair && !j.returned {
		// A crashed repair must have broken nothing. It is run again.
		rep, err := fsck.Check(j.r, fsck.Options{})
		if err != nil {
			return verdict{why: fmt.Sprintf("fsck after a crash of fsck -y: %v", err)}
		}
		for _, problem := range rep.Problems {
			if !j.step.damage[where(problem)] {
				return verdict{why: fmt.Sprintf("a crash of fsck -y left a new problem: %v", problem)}
			}
		}
		if rep, err := fsck.Check(j.r, fsck.Options{Repair: true}); err != nil || rep.Left > 0 {
			return verdict{why: fmt.Sprintf("fsck -y after a crash of fsck -y: %v, %+v", err, rep)}
		}
	}
	if why, err := j.fsck("the crash image", nil); why != "" {
		if j.step.format && j.may&isNone != 0 && (errors.Is(err, layout.ErrMagic) || errors.Is(err, layout.ErrChecksum)) {
			return j.refused()
		}
		return verdict{why: why}
	}
	fsys, err := fs.Mount(j.r, fs.Options{Clock: func() int64 { j.now += 1000; return 2e18 + j.now }})
	known := j.mounted()
	if err != nil {
		return verdict{why: fmt.Sprintf("mount: %v", err)}
	}
	if known != 0 {
		fsys.Abandon()
		return verdict{is: known}
	}
	j.f = fsys
	defer func() {
		if result.why != "" && j.f != nil {
			defer func() { recover() }()
			j.f.Unmount()
		}
	}()
	if result = j.compare(); result.why != "" {
		return result
	}
	if unusable := j.use(); unusable != "" {
		return verdict{why: unusable}
	}
	var stat fs.StatFS
	fsys.StatFS(&stat)
	j.f = nil
	if err := fsys.Unmount(); err != nil {
		return verdict{why: fmt.Sprintf("unmount: %v", err)}
	}
	if found, _ := j.fsck("the region after a clean unmount", &stat); found != "" {
		return verdict{why: found}
	}
	return result
}

// compare returns which of the step's trees the filesystem holds.
func (j *judge) compare() (v verdict) {
	s := j.step
	if s.alts != nil {
		var why string
		for i, a := range s.alts {
			if d := match(j.f, a.tree); d == "" {
				v.is |= isAlt(i)
			} else if a.has == 3 {
				why = d
			}
		}
		if v.is == 0 {
			v.why = "not a tree that these operations at once may leave; compared with both done: " + why
		}
		return v
	}
	var why [3]string
	for i, t := range []struct {
		is   outcome
		tree *node
	}{{isNew, s.new}, {isOld, s.old}, {isMid, s.mid}} {
		if j.may&t.is == 0 || t.tree == nil {
			continue
		}
		if why[i] = match(j.f, t.tree); why[i] == "" {
			if v.is = t.is; s.equal {
				v.is |= isOld | isNew
			}
			if s.clean && j.unclean && t.is == isNew {
				v.is = isNewUnclean
			}
			return v
		}
	}
	v.why = fmt.Sprintf("neither old nor new: as new: %s; as old: %s", why[0], why[1])
	if s.mid != nil {
		v.why = "not within the promise of a write: " + why[2]
	}
	return v
}

// refused checks that mount, too, refuses a region in which fsck finds no filesystem.
func (j *judge) refused() verdict {
	f, err := fs.Mount(j.r, fs.Options{})
	j.mounted()
	if err == nil {
		f.Abandon()
		return verdict{why: "fsck finds no filesystem, but mount mounts the region"}
	}
	return verdict{is: isNone}
}

// fsck checks the region. It returns err if the region could not be checked at all. If st is not
// nil, fsck must count the same free blocks as st, and the filesystem must be clean.
func (j *judge) fsck(what string, st *fs.StatFS) (why string, err error) {
	rep, err := fsck.Check(j.r, fsck.Options{})
	if err != nil {
		return fmt.Sprintf("fsck of %s: %v", what, err), err
	}
	if j.step.format {
		// A crash within mkfs may have cleared one of the old superblocks: the old filesystem then
		// mounts by the other.
		rep.Problems = slices.DeleteFunc(rep.Problems, func(p fsck.Problem) bool {
			return p.Code == fsck.SuperPrimary || p.Code == fsck.SuperBackup
		})
	}
	// The comparison with the model judges whether only the right data is lost.
	rep.Problems = slices.DeleteFunc(rep.Problems, func(p fsck.Problem) bool { return p.Code == fsck.LostData })
	if len(rep.Problems) > 0 {
		return fmt.Sprintf("fsck of %s: %d problems: %v", what, len(rep.Problems), rep.Problems[0]), nil
	}
	if st == nil {
		j.unclean = !rep.Clean
		return "", nil
	}
	if !rep.Clean {
		why = fmt.Sprintf("%s is not marked clean", what)
	}
	if rep.FreeBlocks != st.Bfree {
		why = fmt.Sprintf("free blocks: statfs said %d, fsck counts %d", st.Bfree, rep.FreeBlocks)
	}
	if rep.Orphans+rep.JournalRecords+rep.Truncations > 0 {
		why = fmt.Sprintf("%s has %d orphans, %d journal records, %d interrupted truncations", what, rep.Orphans, rep.JournalRecords, rep.Truncations)
	}
	return why, nil
}

// use creates, writes, reads and deletes a file in every directory, and in a sample of states
// deletes everything.
func (j *judge) use() string {
	if j.step.full {
		if errno := j.f.Unlink(&j.ctx, layout.RootIno, filler); errno != 0 {
			return fmt.Sprintf("unlink in a full filesystem: %v", errno)
		}
	}
	var before, after fs.StatFS
	j.f.StatFS(&before)
	dirs, why := j.list(layout.RootIno, nil)
	if why != "" {
		return why
	}
	data := []byte("is it usable? ")
	pin := j.f.NewPinnedRead()
	defer pin.Free()
	const name = "~crash test~"
	for _, dir := range dirs {
		var attr fs.Attr
		if errno := j.f.Mknod(&j.ctx, dir, name, syscall.S_IFREG|0o600, 0, &attr); errno != 0 {
			return fmt.Sprintf("create in directory %d: %v", dir, errno)
		}
		if n, errno := j.f.Write(&j.ctx, attr.Ino, 4090, data); errno != 0 || n != len(data) {
			return fmt.Sprintf("write in directory %d: %d bytes, %v", dir, n, errno)
		}
		if errno := j.f.Read(&j.ctx, attr.Ino, 0, 8192, pin); errno != 0 {
			return fmt.Sprintf("read in directory %d: %v", dir, errno)
		}
		got := bytes.Join(pin.Slices(), nil)
		pin.Done()
		if want := append(make([]byte, 4090), data...); !bytes.Equal(got, want) {
			return fmt.Sprintf("a file made after recovery reads back wrong: %d bytes, expected %d zeros and %q", len(got), 4090, data)
		}
		if errno := j.f.Unlink(&j.ctx, dir, name); errno != 0 {
			return fmt.Sprintf("unlink in directory %d: %v", dir, errno)
		}
		j.f.Forget(attr.Ino, 1)
	}
	// A crash between a delete and its clean-up leaves an empty directory block, which the next
	// delete in that directory frees. So free space may have grown, but never shrunk.
	if j.f.StatFS(&after); after.Bfree < before.Bfree || after.Bfree > before.Bfree+uint64(len(dirs)) {
		return fmt.Sprintf("free blocks after making and deleting files: %d, before: %d", after.Bfree, before.Bfree)
	}
	if !j.deleteAll {
		return ""
	}
	if why := j.empty(layout.RootIno); why != "" {
		return why
	}
	if errno := j.f.AwaitReclaim(&j.ctx); errno != 0 {
		return fmt.Sprintf("waiting for large files to be free: %v", errno)
	}
	offline := j.f.Stats().OfflineBytes >> layout.BlockShift
	if j.f.StatFS(&after); after.Bfree+offline != emptyFree() {
		return fmt.Sprintf("free blocks with everything deleted: %d and %d offline, of an empty filesystem: %d", after.Bfree, offline, emptyFree())
	}
	return ""
}

// list appends dir and all directories below it to out.
func (j *judge) list(dir uint64, out []uint64) ([]uint64, string) {
	out = append(out, dir)
	var kids []uint64
	if e := j.f.ReadDir(&j.ctx, dir, 2, func(d *fs.Dirent) bool {
		if d.Type == syscall.DT_DIR && string(d.Name) != "." && string(d.Name) != ".." {
			kids = append(kids, d.Ino)
		}
		return true
	}); e != 0 {
		return nil, fmt.Sprintf("readdir of directory %d: %v", dir, e)
	}
	for _, k := range kids {
		var why string
		if out, why = j.list(k, out); why != "" {
			return nil, why
		}
	}
	return out, ""
}

// empty deletes everything below dir.
func (j *judge) empty(dir uint64) string {
	type entry struct {
		name string
		ino  uint64
		dir  bool
	}
	var list []entry
	if e := j.f.ReadDir(&j.ctx, dir, 0, func(d *fs.Dirent) bool {
		if s := string(d.Name); s != "." && s != ".." {
			list = append(list, entry{s, d.Ino, d.Type == syscall.DT_DIR})
		}
		return true
	}); e != 0 {
		return fmt.Sprintf("readdir of directory %d: %v", dir, e)
	}
	for _, k := range list {
		var e syscall.Errno
		if k.dir {
			if why := j.empty(k.ino); why != "" {
				return why
			}
			e = j.f.Rmdir(&j.ctx, dir, k.name)
		} else {
			e = j.f.Unlink(&j.ctx, dir, k.name)
		}
		if e != 0 {
			return fmt.Sprintf("deleting %.40q in directory %d: %v", k.name, dir, e)
		}
	}
	return ""
}
