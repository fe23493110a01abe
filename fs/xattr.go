package fs

import (
	"runtime"
	"slices"
	"strings"
	"syscall"

	"github.com/daxfs/daxfs/fs/layout"
	"github.com/daxfs/daxfs/fs/posixacl"
)

// Flags of SetXattr, the first two as setxattr(2).
const (
	XattrCreate  uint32 = 1 << 0
	XattrReplace uint32 = 1 << 1
	// XattrKillSGID: with an access control list of access the file loses set-group-ID, as
	// with a chmod by who is not of its group.
	XattrKillSGID uint32 = 1 << 16
)

// capability is the attribute that a change of the file's content or owner takes away.
const capability = "security.capability"

// checkXattr refuses names of namespaces that are not kept. What may be read and changed
// in those that are is the kernel's to decide, before it asks.
func checkXattr(name string) syscall.Errno {
	switch ns, rest, ok := strings.Cut(name, "."); {
	case posixacl.IsName(name):
	case !ok, ns != "user" && ns != "trusted" && ns != "security":
		return syscall.EOPNOTSUPP
	case rest == "":
		return syscall.EINVAL
	case len(name) > 255:
		return syscall.ERANGE
	}
	return 0
}

// GetXattr returns the length of an attribute's value, copied to buf unless that is
// empty. ENODATA if there is none of that name, ERANGE (and the length) if buf is too
// small, EOPNOTSUPP for other namespaces than user, trusted and security, and other names
// of system than the two access control lists.
func (fs *FS) GetXattr(ctx *Context, ino uint64, name string, buf []byte) (int, syscall.Errno) {
	if e := checkXattr(name); e != 0 {
		return 0, e
	}
	in, e := fs.get(ino)
	if e != 0 {
		return 0, e
	}
	defer fs.put(in, 1)
	in.mu.RLock()
	defer in.mu.RUnlock()
	xs, err := fs.loadXattrs(in)
	if err != nil {
		return 0, errno(err)
	}
	i := findXattr(xs.list, name)
	if i < 0 {
		return 0, syscall.ENODATA
	}
	x := &xs.list[i]
	switch {
	case len(buf) == 0:
		return int(x.Len), 0
	case len(buf) < int(x.Len):
		return int(x.Len), syscall.ERANGE
	}
	return int(x.Len), errno(fs.xattrValue(in, x, buf[:x.Len]))
}

// xattrValue reads a value to b, which has its length.
func (fs *FS) xattrValue(in *inode, x *layout.Xattr, b []byte) error {
	copy(b, x.Value)
	rest := b
	for _, r := range x.Runs {
		n := min(len(rest), int(r.Len)<<layout.BlockShift)
		if err := fs.checkRead(r.Block, uint64(r.Len)); err != nil {
			return err
		}
		if err := fs.load(int64(r.Block)<<layout.BlockShift, rest[:n]); err != nil {
			return err
		}
		rest = rest[n:]
	}
	if layout.Checksum(fs.seed, b) != x.CRC {
		return corruptf("the value of attribute %q of inode %d has a wrong checksum", x.Name, in.ino)
	}
	return nil
}

// ListXattr returns the length of the list of names, each ended by a NUL, copied to buf
// unless that is empty. Those of namespace trusted are told to root only.
func (fs *FS) ListXattr(ctx *Context, ino uint64, buf []byte) (int, syscall.Errno) {
	in, e := fs.get(ino)
	if e != 0 {
		return 0, e
	}
	defer fs.put(in, 1)
	in.mu.RLock()
	defer in.mu.RUnlock()
	xs, err := fs.loadXattrs(in)
	if err != nil {
		return 0, errno(err)
	}
	n := 0
	fits := true
	for _, x := range xs.list {
		if ctx.UID != 0 && strings.HasPrefix(x.Name, "trusted.") {
			continue
		}
		if fits = fits && n+len(x.Name)+1 <= len(buf); fits {
			copy(buf[n:], x.Name)
			buf[n+len(x.Name)] = 0
		}
		n += len(x.Name) + 1
	}
	if !fits && len(buf) > 0 {
		return n, syscall.ERANGE
	}
	return n, 0
}

// SetXattr sets an attribute: a new one only with XattrCreate (else EEXIST), a present
// one only with XattrReplace (else ENODATA). E2BIG for values longer than 64 KiB, ENOSPC
// also if the names and short values of one file exceed about 400 KiB. The access control
// list of access changes the mode with it, and takes set-group-ID if XattrKillSGID is set, as
// posix_acl_update_mode; EINVAL if a list is none. A crash leaves the old value or the new one.
func (fs *FS) SetXattr(ctx *Context, ino uint64, name string, value []byte, flags uint32) syscall.Errno {
	if flags&^(XattrCreate|XattrReplace|XattrKillSGID) != 0 {
		return syscall.EINVAL
	}
	if len(value) > layout.XattrValueMax {
		return syscall.E2BIG
	}
	return fs.changeXattr(ctx, ino, name, func(in *inode, xs *xattrs, c *layout.Core) error {
		i := findXattr(xs.list, name)
		switch {
		case i >= 0 && flags&XattrCreate != 0:
			return syscall.EEXIST
		case i < 0 && flags&XattrReplace != 0:
			return syscall.ENODATA
		}
		if posixacl.IsName(name) {
			if flags&XattrKillSGID != 0 && name == posixacl.Access {
				c.Mode &^= syscall.S_ISGID
			}
			return fs.setACL(ctx, in, xs, name, value, c)
		}
		if name == capability {
			in.caps.Store(true)
		}
		return fs.setValue(ctx, xs, name, value)
	})
}

// RemoveXattr removes an attribute. ENODATA if there is none of that name, unless that is
// an access control list.
func (fs *FS) RemoveXattr(ctx *Context, ino uint64, name string) syscall.Errno {
	e := fs.changeXattr(ctx, ino, name, removal(name))
	if e == syscall.ENODATA && posixacl.IsName(name) {
		return 0
	}
	return e
}

// removal is the edit that removes an attribute.
func removal(name string) xattrEdit {
	return func(_ *inode, xs *xattrs, _ *layout.Core) error {
		if !xs.remove(name) {
			return syscall.ENODATA
		}
		return nil
	}
}

// killCapability takes the file capabilities from a file that is about to change: the
// kernel leaves it to us (HANDLE_KILLPRIV_V2). When it returns they are gone, whoever took them.
func (fs *FS) killCapability(ctx *Context, in *inode) syscall.Errno {
	if !in.caps.Load() {
		return 0
	}
	e := fs.editXattrs(ctx, in, func(in *inode, xs *xattrs, _ *layout.Core) error {
		if !xs.remove(capability) {
			in.caps.Store(false)
			return syscall.ENODATA
		}
		return nil
	})
	if e == syscall.ENODATA {
		return 0
	}
	return e
}

// xattrs is an inode's list of attributes, and where it stands.
type xattrs struct {
	list  []layout.Xattr
	chain []uint64 // blocks of the list

	// Of a list that is being changed:
	fresh []layout.XattrRun // of values that were just stored, and are not linked yet
	gone  []layout.Xattr    // that are linked, and will not be
}

func findXattr(list []layout.Xattr, name string) int {
	return slices.IndexFunc(list, func(x layout.Xattr) bool { return x.Name == name })
}

// root is the first block of the list; 0: there is none.
func (xs *xattrs) root() uint64 {
	if len(xs.chain) == 0 {
		return 0
	}
	return xs.chain[0]
}

// remove takes an attribute off the list, and reports whether there was one.
func (xs *xattrs) remove(name string) bool {
	i := findXattr(xs.list, name)
	if i < 0 {
		return false
	}
	xs.gone = append(xs.gone, xs.list[i])
	xs.list = slices.Delete(xs.list, i, i+1)
	return true
}

// setValue gives an attribute a value, which it stores in fresh blocks if it is long.
func (fs *FS) setValue(ctx *Context, xs *xattrs, name string, value []byte) error {
	x := layout.Xattr{Name: name, Len: uint32(len(value)), CRC: layout.Checksum(fs.seed, value)}
	if len(value) <= layout.XattrInline {
		x.Value = value
	} else {
		runs, err := fs.storeValue(ctx, value)
		if err != nil {
			return err
		}
		x.Runs = runs
		xs.fresh = append(xs.fresh, runs...)
	}
	if i := findXattr(xs.list, name); i >= 0 {
		xs.gone = append(xs.gone, xs.list[i])
		xs.list[i] = x
	} else {
		xs.list = append(xs.list, x)
	}
	return nil
}

// loadXattrs reads an inode's attributes, which nobody may change. A list of several blocks is
// kept for a while (xattrCache), since reading each of n attributes would take n*n steps. Called
// with mu held.
func (fs *FS) loadXattrs(in *inode) (xs xattrs, err error) {
	if in.xroot == 0 {
		return xs, nil
	}
	if kept := in.xattrs.Load(); kept != nil {
		return *kept, nil
	}
	if xs, err = fs.walkXattrs(in.ino, in.core.Gen, in.xroot); err != nil {
		return xs, err
	}
	for _, b := range xs.chain {
		if err := fs.taken(in.ino, b, 1, true); err != nil {
			return xattrs{}, err
		}
	}
	for _, x := range xs.list {
		for _, r := range x.Runs {
			if err := fs.taken(in.ino, r.Block, uint64(r.Len), false); err != nil {
				return xattrs{}, err
			}
		}
	}
	if len(xs.chain) > 1 {
		kept := xs
		fs.xattrs.keep(in, &kept)
	}
	return xs, nil
}

// walkXattrs reads the attributes from root on. All of it was checked to lie within the
// filesystem; a damaged chain is an error, never a loop.
func (fs *FS) walkXattrs(ino uint64, gen uint32, root uint64) (xs xattrs, err error) {
	var list []byte
	var buf [layout.BlockSize]byte
	for b := root; b != 0; {
		off := int64(b) << layout.BlockShift
		if b >= fs.sb.Blocks() || off < fs.sb.StaticEnd || len(xs.chain) == layout.XattrBlocksMax {
			return xs, corruptf("block %d of the attributes of inode %d is out of range", b, ino)
		}
		if err := fs.load(off, buf[:]); err != nil {
			return xs, err
		}
		h, part, ok := layout.XattrPart(buf[:], fs.seed, off)
		if !ok || h.Owner != ino || h.Gen != gen || int(h.Index) != len(xs.chain) {
			return xs, corruptf("block %d is not block %d of the attributes of inode %d that it should be", b, len(xs.chain), ino)
		}
		list = append(list, part...)
		xs.chain = append(xs.chain, b)
		b = h.Next
	}
	for len(list) > 0 {
		x, rest, ok := layout.NextXattr(list)
		if !ok {
			return xs, corruptf("the attributes of inode %d at block %d cannot be read", ino, root)
		}
		for _, r := range x.Runs {
			if r.Len == 0 || r.Block >= fs.sb.Blocks() || fs.sb.Blocks()-r.Block < uint64(r.Len) || int64(r.Block)<<layout.BlockShift < fs.sb.StaticEnd {
				return xs, corruptf("attribute %q of inode %d has blocks out of range", x.Name, ino)
			}
		}
		xs.list = append(xs.list, x)
		list = rest
	}
	return xs, nil
}

// blocks is how many blocks the attributes take.
func (xs *xattrs) blocks() uint64 {
	n := uint64(len(xs.chain))
	for _, x := range xs.list {
		for _, r := range x.Runs {
			n += uint64(r.Len)
		}
	}
	return n
}

// xattrEdit changes an inode's list of attributes, and its core.
type xattrEdit func(in *inode, xs *xattrs, c *layout.Core) error

// changeXattr is editXattrs for who asks from outside.
func (fs *FS) changeXattr(ctx *Context, ino uint64, name string, edit xattrEdit) syscall.Errno {
	if e := fs.mayChange(); e != 0 {
		return e
	}
	if e := checkXattr(name); e != 0 {
		return e
	}
	in, e := fs.get(ino)
	if e != 0 {
		return e
	}
	defer fs.put(in, 1)
	if in.fixed() {
		return syscall.EPERM
	}
	return fs.patiently(ctx, func() syscall.Errno { return fs.editXattrs(ctx, in, edit) })
}

// editXattrs replaces an inode's list of attributes by what edit makes of it, and its core,
// if edit changes that, in the same transaction.
//
// Persistence order:
//  1. the new list is stored (swapXattrs)
//  2. transaction: the times line with the new root and ctime, and perhaps the core line
//  3. only then is the old list free
func (fs *FS) editXattrs(ctx *Context, in *inode, edit xattrEdit) syscall.Errno {
	if err := fs.blocksKnown(ctx, in); err != nil { // from here on
		return errno(err)
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	c := in.core
	s, err := fs.swapXattrs(ctx, in, func(xs *xattrs) error { return edit(in, xs, &c) })
	if err != nil {
		return errno(err)
	}
	now := fs.now()
	t := fs.begin(ctx)
	if c != in.core {
		in.stageCore(t, &c)
	}
	st := in.stageTimes(t, SetCtime, now)
	if err := t.commit(); err != nil {
		s.undo(ctx, fs)
		return errno(err)
	}
	in.applyCore(&c)
	in.applyTimes(&st)
	in.caps.Store(findXattr(s.now.list, capability) >= 0)
	s.done(ctx, fs)
	return 0
}

// xattrSwap is a change of an inode's attributes on its way: what they will be is stored,
// and inode.xroot names it, for a transaction with the times line to link.
type xattrSwap struct {
	in       *inode
	old, now xattrs
}

// swapXattrs stores the attributes that edit makes of an inode's. With an error everything
// is as it was. Called with mu held, and no lane.
//
// Persistence order:
//  1. NT-store a long value into fresh blocks (edit)
//  2. by the same thread, NT-store the new list into fresh metadata blocks, SFENCE each
//  3. the caller's transaction: the times line with the new root
//  4. only then are the old list, and old values that were long, free (done)
func (fs *FS) swapXattrs(ctx *Context, in *inode, edit func(xs *xattrs) error) (*xattrSwap, error) {
	old, err := fs.loadXattrs(in)
	if err != nil {
		return nil, err
	}
	s := &xattrSwap{in: in, old: old, now: xattrs{list: slices.Clone(old.list)}}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err = edit(&s.now); err == nil {
		s.now.chain, err = fs.storeXattrs(ctx, in, s.now.list)
	}
	if err != nil {
		s.undo(ctx, fs)
		return nil, err
	}
	in.xroot = s.now.root()
	fs.xattrs.drop(in)
	return s, nil
}

// undo is for a transaction that was not committed.
func (s *xattrSwap) undo(ctx *Context, fs *FS) {
	if s == nil {
		return
	}
	s.in.xroot = s.old.root()
	fs.xattrs.drop(s.in)
	for _, b := range s.now.chain {
		fs.freeMeta(ctx, b)
	}
	for _, r := range s.now.fresh {
		fs.freeIdle(r.Block, uint64(r.Len))
	}
}

// done is step 4.
func (s *xattrSwap) done(ctx *Context, fs *FS) {
	if s == nil {
		return
	}
	s.in.acls = nil
	for _, r := range s.now.fresh {
		fs.table.Own(r.Block, uint64(r.Len))
	}
	s.in.blocks.Add(s.now.blocks() - s.old.blocks())
	for _, b := range s.old.chain {
		fs.freeMeta(ctx, b)
	}
	for i := range s.now.gone {
		fs.disownValue(&s.now.gone[i])
	}
}

// storeXattrs is step 2 of swapXattrs. With an error come the blocks that were allocated.
func (fs *FS) storeXattrs(ctx *Context, in *inode, list []layout.Xattr) (chain []uint64, err error) {
	var b []byte
	for i := range list {
		b = list[i].Append(b)
	}
	n := (len(b) + layout.XattrBlockBytes - 1) / layout.XattrBlockBytes
	if n > layout.XattrBlocksMax {
		return nil, errNoSpace
	}
	for range n {
		block, err := fs.allocMeta(ctx, 0)
		if err != nil {
			return chain, err
		}
		chain = append(chain, block)
	}
	for i, block := range chain {
		part := b[i*layout.XattrBlockBytes : min(len(b), (i+1)*layout.XattrBlockBytes)]
		h := layout.XattrBlock{Index: uint32(i), Owner: in.ino, Gen: in.core.Gen, Bytes: uint32(len(part))}
		if i+1 < n {
			h.Next = chain[i+1]
		}
		off := int64(block) << layout.BlockShift
		if err := fs.formatBlock(off, func(b []byte, seq uint64) { h.Format(b, part, fs.seed, off, seq) }); err != nil {
			return chain, err
		}
	}
	return chain, nil
}

// storeValue is step 1 of swapXattrs: a long value in fresh blocks. The list that names it is stored, and
// fenced, next.
func (fs *FS) storeValue(ctx *Context, value []byte) (runs []layout.XattrRun, err error) {
	for range extendTries {
		if runs, err = fs.tryStoreValue(ctx, value); err != errBadBlocks {
			return runs, err
		}
	}
	return nil, err
}

func (fs *FS) tryStoreValue(ctx *Context, value []byte) (runs []layout.XattrRun, err error) {
	for left := blocksOf(int64(len(value))); left > 0 && err == nil; {
		block, n, ok := fs.alloc.Alloc(0, fs.spare(ctx.UID, left))
		if !ok {
			err = errNoSpace
			break
		}
		runs = append(runs, layout.XattrRun{Block: block, Len: uint32(n)})
		left -= n
	}
	if err == nil {
		err = fs.storeRuns(runs, value)
	}
	if err != nil {
		for _, r := range runs {
			if fs.freshFailed(run{r.Block, uint64(r.Len)}, err) {
				err = errBadBlocks // but elsewhere
			}
			fs.freeIdle(r.Block, uint64(r.Len))
		}
		return nil, err
	}
	return runs, nil
}

func (fs *FS) storeRuns(runs []layout.XattrRun, value []byte) error {
	for _, r := range runs {
		n := min(len(value), int(r.Len)<<layout.BlockShift)
		if err := fs.r.NTStore(int64(r.Block)<<layout.BlockShift, value[:n]); err != nil {
			return err
		}
		value = value[n:]
	}
	return nil
}

// disownValue gives back the blocks of a value that nothing on media names any more.
func (fs *FS) disownValue(x *layout.Xattr) {
	for _, r := range x.Runs {
		fs.table.Disown(r.Block, uint64(r.Len), fs.freeIdle)
	}
}

// freeXattrs gives back what the attributes of an inode took that is no longer on media.
func (fs *FS) freeXattrs(ctx *Context, xs *xattrs) {
	for _, b := range xs.chain {
		fs.freeMeta(ctx, b)
	}
	for i := range xs.list {
		fs.disownValue(&xs.list[i])
	}
}
