package fs

import (
	"errors"
	"runtime"
	"syscall"

	"github.com/daxfsd/daxfsd/direct/protocol"
	"github.com/daxfsd/daxfsd/fs/layout"
	"github.com/daxfsd/daxfsd/fs/lease"
)

// GrantQuery asks for the blocks of a file.
type GrantQuery struct {
	Lo, Hi   uint64 // file blocks [Lo, Hi)
	Write    bool   // to write, too
	Allocate bool   // holes get blocks; with Write
	Most     int    // of the parts that the answer may have
	Handle   uint64 // of the open file: its end ends the grant if that is not confirmed
	Kill     uint32 // SetKillPriv and SetKillSGID, as a write(2) of the caller would clear these bits
	PID      uint32 // of the thread that asks
	PageSize uint64 // in bytes: the range is promoted to pages of that size where that can be had
}

const (
	// grantPiece is how many blocks of a file are prepared for writing at once: 2 MiB are zeroed in
	// less than a millisecond.
	grantPiece = 512
	// grantTries bounds how often a grant is prepared again because the file changed meanwhile.
	grantTries = 16
	// grantExtents bounds how many extents and holes a grant looks at: a fraction of a millisecond.
	grantExtents = 4096
)

// Grant promises that a program may map blocks of a file: those of [q.Lo, q.Hi), as far as they lie
// before the end of the file and in q.Most parts; hi of the grant says how far that is. Of a grant
// to read, holes and unwritten blocks are in no part. Of a grant to write, all blocks are in one:
// they are written, and no other file has them.
//
// The blocks stay what they are, whatever becomes of the file, until the grant ends (lease.Table).
// size is that of the file in bytes.
//
// EOPNOTSUPP if the mount makes no such grants, or for a file that is cached by the kernel; EISDIR
// and EINVAL for what is no regular file; EPERM if the file is immutable or append-only; ENXIO
// beyond its end, and at a hole that q does not allocate; ENOLCK if the region has as many grants
// as it may have; EIO if the media cannot be read; ENOSPC; EINTR; EAGAIN if the file is changed all
// the time.
//
// Persistence order of a grant to write, in pieces:
//  1. NT-zero what is unwritten, and a copy of what is shared; SFENCE
//  2. transaction: slots
func (d *Direct) Grant(ctx *Caller, ino uint64, q *GrantQuery) (g *lease.Grant, size uint64, e syscall.Errno) {
	fs := d.fs
	in, e := d.mayGrant(ino, q)
	if e != 0 {
		return nil, 0, e
	}
	defer fs.put(in, 1)
	if err := fs.extentsLoaded(ctx, in); err != nil {
		return nil, 0, errno(err)
	}
	placed := *ctx // what is allocated is aligned
	placed.Order = fs.pageOrder(q.PageSize)
	ctx = &placed
	shared := d.promote(ctx, in, q)
	for tries := range grantTries {
		if q.Write {
			if e := d.killPriv(ctx, in, q); e != 0 {
				return nil, 0, e
			}
			e = fs.retryNoSpace(ctx, func() syscall.Errno { return errno(d.prepare(ctx, in, q)) })
			if e != 0 {
				return nil, 0, e
			}
		}
		if q.Write && shared { // prepare has replaced these blocks
			d.promote(ctx, in, q)
			shared = false
		}
		g, size, err := d.try(ctx, in, q)
		switch {
		case err == syscall.ENOLCK && tries == 0: // leases may have ended
			if ctx.NoWait {
				return nil, 0, syscall.EAGAIN
			}
			d.sweep()
		case err != errChangedMeanwhile:
			return g, size, errno(err)
		}
		if ctx.cancelled() {
			return nil, 0, syscall.EINTR
		}
	}
	return nil, 0, syscall.EAGAIN
}

// errChangedMeanwhile: the file's blocks are not as prepare left them.
var errChangedMeanwhile = errors.New("fs: the file changed while it was granted")

// mayGrant returns the inode with a reference if the mount makes such grants of it.
func (d *Direct) mayGrant(ino uint64, q *GrantQuery) (*inode, syscall.Errno) {
	fs := d.fs
	mode := fs.opt.Direct
	switch {
	case fs.opt.ReadOnly && q.Write:
		return nil, syscall.EROFS
	case mode == DirectOff || d.leases == nil || d.failed.Load():
		return nil, syscall.EOPNOTSUPP
	case q.Write && mode == DirectRead:
		return nil, syscall.EROFS
	case q.Write && fs.atomic():
		return nil, syscall.EOPNOTSUPP
	case q.Lo >= q.Hi || q.Hi > maxBlock+1 || q.Most < 1 || q.Allocate && !q.Write:
		return nil, syscall.EINVAL
	}
	if e := fs.mayChange(); e != 0 {
		return nil, e
	}
	in, e := fs.get(ino)
	if e != 0 {
		return nil, e
	}
	e = in.mustBeFile()
	if e == 0 && q.Write && in.immutableOrAppend() {
		e = syscall.EPERM
	}
	if e != 0 {
		fs.put(in, 1)
		return nil, e
	}
	return in, 0
}

// killPriv removes what a write removes: file capabilities, and the bits of q.Kill.
func (d *Direct) killPriv(ctx *Caller, in *inode, q *GrantQuery) syscall.Errno {
	fs := d.fs
	if e := fs.killCapability(ctx, in); e != 0 {
		return e
	}
	in.mu.RLock()
	kills := q.killsLocked(in)
	in.mu.RUnlock()
	if !kills {
		return 0
	}
	return fs.retryNoSpace(ctx, func() syscall.Errno { return errno(fs.setAttr(ctx, in, &SetAttr{Valid: q.Kill})) })
}

// killsLocked reports whether the file has capabilities, or bits of its mode, that a grant to write
// removes. Called with in.mu held.
func (q *GrantQuery) killsLocked(in *inode) bool {
	s := SetAttr{Valid: q.Kill}
	return in.caps.Load() || q.Kill != 0 && s.killed(in.core.Mode) != in.core.Mode
}

// prepare makes the blocks of a grant to write written, and the file's alone. Called with no
// lock held; it holds io for a piece at a time.
func (d *Direct) prepare(ctx *Caller, in *inode, q *GrantQuery) error {
	for lo, again := q.Lo, 0; lo < q.Hi; {
		if ctx.cancelled() {
			return syscall.EINTR
		}
		if err := in.lockIO(ctx); err != nil {
			return err
		}
		stop, err := d.preparePieceLocked(ctx, in, lo, min(q.Hi, lo-lo%grantPiece+grantPiece), q.Allocate)
		in.io.Unlock()
		switch {
		case err == errBadBlocks && again < extendTries: // they are known now, and replaced
			again++
		case err == errHole && stop > q.Lo:
			return nil // the grant ends there
		case err == errHole:
			return syscall.ENXIO
		case err != nil || stop == lo:
			return err
		default:
			lo = stop
		}
	}
	return nil
}

// errHole: a grant to write that allocates nothing has come to a hole.
var errHole = errors.New("fs: a hole in a grant to write")

// preparePieceLocked prepares file blocks [lo, hi), and returns up to where. If that is lo there is
// nothing more: the file ends before. Called with io held.
func (d *Direct) preparePieceLocked(ctx *Caller, in *inode, lo, hi uint64, allocate bool) (stop uint64, err error) {
	fs := d.fs
	hi = min(hi, blocksOf(int64(in.size.Load())))
	// What needs nothing is passed over.
	for lo < hi {
		e, ok := in.space.Lookup(lo)
		if !ok && !allocate {
			return lo, errHole
		}
		if !ok || e.Flags&(layout.ExtentUnwritten|layout.ExtentShared) != 0 {
			break
		}
		lo = min(hi, e.End())
	}
	if lo >= hi {
		return lo, nil
	}
	if e, ok := in.space.Lookup(lo); ok {
		hi = min(hi, e.End())
	} else {
		hi = min(hi, e.Logical)
	}
	m, stop, err := fs.planLocked(ctx, in, lo, hi, dispWrite)
	if err != nil {
		return lo, err
	}
	if err = m.reserveSlots(ctx); err == nil {
		err = fs.fillPieces(m)
	}
	if err != nil {
		return lo, m.abort(ctx, err)
	}
	return stop, m.commit(ctx, 0)
}

// fillPieces stores zeros to the unwritten blocks of a planned write, or what the blocks hold that
// they replace, and fences.
func (fs *FS) fillPieces(m *remap) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	m.stored = true
	size := int64(m.in.size.Load())
	for _, p := range m.parts {
		if p.Flags&layout.ExtentUnwritten != 0 {
			at := int64(p.Logical) << layout.BlockShift
			if err := fs.storeAround(p, at, at, size); err != nil {
				return err
			}
		}
	}
	fs.r.Fence()
	return nil
}

// try looks up the blocks of a grant and leases them. errChangedMeanwhile if they are not as
// prepare left them.
func (d *Direct) try(ctx *Caller, in *inode, q *GrantQuery) (g *lease.Grant, size uint64, err error) {
	fs := d.fs
	if err := in.lockIO(ctx); err != nil {
		return nil, 0, err
	}
	defer in.io.Unlock()
	size = in.size.Load()
	hi := min(q.Hi, blocksOf(int64(size)))
	if q.Lo >= hi {
		return nil, 0, syscall.ENXIO
	}
	g = &lease.Grant{Ino: in.ino, Lo: q.Lo, Writable: q.Write, Handle: q.Handle, UID: ctx.UID, PID: q.PID}
	at := q.Lo
	for n := 0; at < hi && len(g.Parts) < q.Most && n < grantExtents; n++ {
		e, ok := in.space.Lookup(at)
		if !ok && !q.Write {
			at = min(hi, e.Logical)
			continue
		}
		if !ok {
			if q.Allocate {
				return nil, 0, errChangedMeanwhile
			}
			break
		}
		x := part(e, at, min(hi, e.End()))
		if same, bad := fs.bad.SameState(x.Block, uint64(x.Len)); bad {
			if at == q.Lo {
				return nil, 0, syscall.EIO
			}
			break
		} else {
			x = part(x, at, at+same)
		}
		switch {
		case q.Write && x.Flags&(layout.ExtentUnwritten|layout.ExtentShared) != 0:
			return nil, 0, errChangedMeanwhile
		case x.Flags&layout.ExtentUnwritten == 0:
			g.Parts = append(g.Parts, lease.Part{Logical: x.Logical, Block: x.Block, N: uint64(x.Len)})
		}
		at = x.End()
	}
	if g.Hi = at; g.Hi == q.Lo {
		return nil, 0, syscall.ENXIO
	}
	if tail := (span{int64(size), blockEnd(int64(size))}); uint64(size)>>layout.BlockShift < g.Hi {
		if err := fs.zeroFencedLocked(ctx, in, tail); err != nil {
			return nil, 0, err
		}
		// Zeroing may have moved the block, if it is shared.
		if n := len(g.Parts); n > 0 {
			last := &g.Parts[n-1]
			if e, ok := in.space.Lookup(last.Logical + last.N - 1); !ok || e.BlockAt(last.Logical+last.N-1) != last.Block+last.N-1 {
				return nil, 0, errChangedMeanwhile
			}
		}
	}
	in.mu.RLock() // flags and mode stay: from now on their changes see the grant
	defer in.mu.RUnlock()
	switch {
	case q.Write && in.immutableOrAppend():
		return nil, 0, syscall.EPERM
	case q.Write && q.killsLocked(in):
		return nil, 0, errChangedMeanwhile
	}
	if err := d.add(g, size); err != nil {
		if errors.Is(err, lease.ErrBudget) {
			return nil, 0, syscall.ENOLCK
		}
		d.check(err)
		return nil, 0, syscall.EIO
	}
	return g, size, nil
}

// Confirm makes a grant last as long as the program's lock. ENOENT if there is no such grant of
// the file; ENOLCK if its lock is not seen; ESTALE if the file's layout has changed since.
func (d *Direct) Confirm(ctx *Caller, ino, id, generation uint64) syscall.Errno {
	fs := d.fs
	in, e := fs.get(ino)
	if e != 0 {
		return e
	}
	defer fs.put(in, 1)
	if d.leases == nil {
		return syscall.ENOENT
	}
	if err := in.lockIO(ctx); err != nil {
		return errno(err)
	}
	defer in.io.Unlock()
	return grantErrno(d.leases.Confirm(ino, id, generation))
}

// Commit is called after a program has stored to n bytes at file offset off through a grant; n is 0
// for all of it: mtime and ctime change. It returns the range [lo, hi) of bytes that others may
// have cached. ENOENT if there is no such grant of the file; EBADF if it is not to write; EINVAL
// for a range that it is not of.
func (d *Direct) Commit(ino, id uint64, off, n int64) (lo, hi int64, e syscall.Errno) {
	fs := d.fs
	if d.leases == nil {
		return 0, 0, syscall.ENOENT
	}
	g, err := d.leases.Lookup(ino, id)
	if err != nil {
		return 0, 0, grantErrno(err)
	}
	if !g.Writable {
		return 0, 0, syscall.EBADF
	}
	lo, hi = int64(g.Lo)<<layout.BlockShift, int64(g.Hi)<<layout.BlockShift
	if n != 0 {
		if off < lo || off+n > hi {
			return 0, 0, syscall.EINVAL
		}
		lo, hi = off, off+n
	}
	in, e := fs.get(ino)
	if e != 0 {
		return 0, 0, e
	}
	defer fs.put(in, 1)
	fs.touch(in)
	return lo, hi, 0
}

// Release is a hint that a lease may have ended.
func (d *Direct) Release(ino, id uint64) syscall.Errno {
	if d.leases == nil {
		return syscall.ENOENT
	}
	return grantErrno(d.leases.Look(ino, id))
}

// CloseHandle ends the grants that were made to an open file and not confirmed.
func (d *Direct) CloseHandle(handle uint64) {
	if d.any() {
		d.leases.CloseHandle(handle)
	}
}

func grantErrno(err error) syscall.Errno {
	switch {
	case err == nil:
		return 0
	case errors.Is(err, lease.ErrUnknown):
		return syscall.ENOENT
	case errors.Is(err, lease.ErrNotLocked):
		return syscall.ENOLCK
	case errors.Is(err, lease.ErrStale):
		return syscall.ESTALE
	}
	return syscall.EIO
}

// Reply returns what a program is told of a grant. size is that of the file in bytes.
func (d *Direct) Reply(g *lease.Grant, size uint64) (*protocol.Grant, syscall.Errno) {
	fs := d.fs
	id, err := fs.r.FileID()
	if err != nil {
		return nil, errno(err)
	}
	p := &protocol.Grant{
		ID: g.ID, Inode: g.Ino, RegionDev: id.Dev, RegionIno: id.Ino, UUID: fs.sb.UUID,
		Slot: uint64(g.Slot), Generation: g.Generation, FileSize: size, End: g.Hi << layout.BlockShift,
		Granule: uint64(fs.sb.Granule), RegionSize: uint64(fs.r.Size()), Path: fs.r.Path(),
	}
	if g.Writable {
		p.Flags = protocol.Write
	}
	for _, x := range g.Parts {
		p.Extents = append(p.Extents, protocol.Extent{Offset: x.Logical << layout.BlockShift, Region: x.Block << layout.BlockShift, Length: x.N << layout.BlockShift})
	}
	return p, 0
}
