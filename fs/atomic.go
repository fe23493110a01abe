package fs

import (
	"fmt"
	"runtime"
	"sync/atomic"

	"github.com/daxfs/daxfs/fs/layout"
	"github.com/daxfs/daxfs/pmem"
)

// This file makes a write all or nothing (Options.Atomic). What goes to new blocks, or
// beyond the end of file, is shown by one transaction anyhow (extendPiece). What is stored
// over a file's data keeps its place, so that large folios stay large: the transaction
// carries it (a logged record), and it is copied in place once that is committed.

// AtomicUnit is the largest write that is all or nothing with Options.Atomic, in bytes.
const AtomicUnit = layout.LoggedData

// dataPiece is a part of a file's data that a transaction stores in place.
type dataPiece struct {
	off int64 // of the region
	b   []byte
}

// atomic reports whether writes are all or nothing.
func (fs *FS) atomic() bool { return fs.opt.Atomic && !fs.opt.ReadOnly }

// What the bodies of logged records take, in bytes: of the largest, and of those for which
// each lane has a place of its own.
const (
	stageSize = (layout.LoggedData + layout.LoggedMax*(layout.LineSize+8+16) + 3*layout.LineSize + layout.BlockSize - 1) &^ (layout.BlockSize - 1)
	laneStage = 2 * layout.BlockSize
)

// stages are where the bodies of logged records are put together.
type stages struct {
	all  []run        // immutable once mounted
	free chan int64   // large ones that nobody uses; closed when none is usable any more
	good atomic.Int32 // large ones that are usable
}

// openStages takes space for the bodies of logged records: a small place for each lane, and
// a large one for each 128 MiB, as many as CPUs at most. It belongs to nobody on media, so
// it is free again at the next mount.
func (fs *FS) openStages() error {
	s := &fs.stages
	take := func(n int64) (off int64, ok bool) {
		if off, ok = fs.takeFree(n); ok {
			s.all = append(s.all, run{uint64(off) >> layout.BlockShift, uint64(n) >> layout.BlockShift})
		}
		return off, ok
	}
	small, ok := take(int64(len(fs.lanes)) * laneStage)
	for i, l := range fs.lanes {
		l.stage = small + int64(i)*laneStage
	}
	n := int(max(1, min(fs.sb.Size>>27, int64(runtime.GOMAXPROCS(0)))))
	s.free = make(chan int64, n)
	for ok && len(s.free) < n {
		var at int64
		if at, ok = take(stageSize); ok {
			s.free <- at
		}
	}
	s.good.Store(int32(len(s.free)))
	if len(s.free) == 0 {
		return fmt.Errorf("-o atomic needs %d KiB of free space, %d KiB of them in one piece: mount without it and delete something",
			(stageSize+len(fs.lanes)*laneStage)>>10, stageSize>>10)
	}
	return nil
}

// closeStages makes the stages free again.
func (fs *FS) closeStages() {
	for _, r := range fs.stages.all {
		fs.freeIdle(r.block, r.n)
	}
	fs.stages.all = nil
}

// takeStage returns a place for a body of n bytes, which giveStage takes back.
// Called with the lane.
func (l *lane) takeStage(n int) (at int64, err error) {
	if n <= laneStage && l.stage != 0 {
		return l.stage, nil
	}
	at, ok := <-l.fs.stages.free
	if !ok {
		return 0, fmt.Errorf("no place for the data of a write that is all or nothing is left that can be written: %w", pmem.ErrMedia)
	}
	return at, nil
}

// giveStage ends the use of a stage. One that media refuse is not used again. Called with the
// lane.
func (l *lane) giveStage(at int64, bad bool) {
	s := &l.fs.stages
	switch {
	case at == l.stage && bad:
		l.stage = 0 // it uses the large ones from now on
	case at == l.stage:
	case !bad:
		s.free <- at
	case s.good.Add(-1) == 0:
		close(s.free)
	}
}

// takeFree allocates the first n bytes that are free in one piece.
func (fs *FS) takeFree(n int64) (off int64, ok bool) {
	want, at := uint64(n)>>layout.BlockShift, uint64(0)
	fs.alloc.Walk(func(block, free uint64) bool {
		if free >= want {
			at = block
		}
		return at == 0
	})
	return int64(at) << layout.BlockShift, at != 0 && fs.alloc.Reserve(at, want)
}

// commitLogged is commit of a transaction that carries data of files, or more lines than a
// slot holds. When it returns the record is retired: data has no sequence that would tell
// replaying what is newer, and the body's place is used again. Until then the caller's
// locks keep everybody else from what the record holds.
//
// Persistence order:
//  1. CLWB the lines the lane's previous transaction stored in place; NT-store the body,
//     tables and data, in a stage; SFENCE
//  2. NT-store the header into the slot, SFENCE: the record is committed
//  3. store the lines in place, CLWB; NT-store the data in place; SFENCE
//  4. clear the header, CLWB, SFENCE: the record is retired
//
// If media fail under the body nothing has happened. If they fail under the data the
// transaction has happened, but for that (lostError).
func (t *tx) commitLogged(seq uint64) error {
	l, fs := t.lane, t.lane.fs
	h := layout.RecordHeader{Seq: seq}
	for _, d := range t.data {
		h.Data += uint32(len(d.b))
	}
	var err error
	if h.At, err = l.takeStage(layout.TablesSize(t.n, len(t.data)) + int(h.Data)); err != nil {
		return err
	}
	bad := false
	defer func() { l.giveStage(h.At, bad) }()
	if err := fs.failure(); err != nil {
		return err // the record whose body stands there may not be retired
	}
	slot := l.slotOff()
	rec := t.buildRecord(&h)

	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for _, off := range l.prev {
		if err := fs.r.Flush(off, layout.LineSize); err != nil {
			return fs.shutdown(err)
		}
	}
	err = t.storeBody(h.At, rec[layout.LineSize:])
	fs.r.Fence()
	if err != nil {
		bad = true
		n := uint64(stageSize)
		if h.At == l.stage {
			n = laneStage
		}
		fs.freshFailed(run{uint64(h.At) >> layout.BlockShift, n >> layout.BlockShift}, err)
		return err
	}
	if err = fs.r.NTStore(slot, rec[:layout.LineSize]); err != nil {
		return fs.shutdown(err)
	}
	fs.r.Fence()
	l.seq.Store(seq)
	l.prev = l.prev[:0]
	if err = t.storeLines(); err != nil {
		return fs.shutdown(err)
	}
	missing := t.storeData()
	fs.r.Fence()
	if err = fs.clearSlot(slot); err != nil {
		return fs.shutdown(err)
	}
	fs.r.Fence()
	clear(t.data) // the caller's
	if missing != nil {
		return lostError{missing}
	}
	return nil
}

// storeBody is step 1 of commitLogged, but for the lines.
func (t *tx) storeBody(at int64, tables []byte) error {
	r := t.lane.fs.r
	if err := r.NTStore(at, tables); err != nil {
		return err
	}
	at += int64(len(tables))
	for _, d := range t.data {
		if err := r.NTStore(at, d.b); err != nil {
			return err
		}
		at += int64(len(d.b))
	}
	return nil
}

// storeLines is the first half of step 3.
func (t *tx) storeLines() error {
	r := t.lane.fs.r
	for i := 0; i < t.n; i++ {
		if err := r.Store(t.offs[i], t.line[i][:]); err != nil {
			return err
		}
		if err := r.Flush(t.offs[i], layout.LineSize); err != nil {
			return err
		}
	}
	return nil
}

// storeData is the second half. Where media fail it goes on, and returns the first error.
func (t *tx) storeData() (first error) {
	for _, d := range t.data {
		if err := t.lane.fs.r.NTStore(d.off, d.b); err != nil && first == nil {
			first = err
		}
	}
	return first
}

// overwriteLogged is the overwrite that is all or nothing. A truncation waits for it.
func (fs *FS) overwriteLogged(ctx *Context, in *inode, off int64, data []byte) (done bool, err error) {
	in.mu.RLock()
	defer in.mu.RUnlock()
	if len(data) > AtomicUnit || off+int64(len(data)) > int64(in.core.Size) || !fs.inPlace(in, off, int64(len(data))) {
		return false, nil
	}
	t := fs.begin(ctx)
	for len(data) > 0 {
		e, _ := in.space.Lookup(uint64(off) >> layout.BlockShift)
		n := min(int64(len(data)), int64(e.End())<<layout.BlockShift-off)
		t.data = append(t.data, dataPiece{regionOff(e, off), data[:n]})
		off, data = off+n, data[n:]
	}
	if err = t.commit(); err != nil && fs.mediaFailed(err) {
		return false, nil // but elsewhere
	}
	return true, err
}
