package fs

import (
	"fmt"
	"runtime"

	"github.com/daxfs/daxfs/fs/layout"
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

// openStages takes space for the bodies of logged records: a small place for each lane, and
// a large one for each 128 MiB, as many as CPUs at most. It belongs to nobody on media, so
// it is free again at the next mount.
func (fs *FS) openStages() error {
	small, ok := fs.takeFree(int64(len(fs.lanes)) * laneStage)
	for i, l := range fs.lanes {
		l.stage = small + int64(i)*laneStage
	}
	n := int(max(1, min(fs.sb.Size>>27, int64(runtime.GOMAXPROCS(0)))))
	fs.stages = make(chan int64, n)
	for ok && len(fs.stages) < n {
		var at int64
		if at, ok = fs.takeFree(stageSize); ok {
			fs.stages <- at
		}
	}
	if len(fs.stages) == 0 {
		return fmt.Errorf("-o atomic needs %d KiB of free space, %d KiB of them in one piece: mount without it and delete something",
			(stageSize+len(fs.lanes)*laneStage)>>10, stageSize>>10)
	}
	return nil
}

// closeStages makes the stages free again.
func (fs *FS) closeStages() {
	if fs.stages == nil {
		return
	}
	fs.alloc.Free(uint64(fs.lanes[0].stage)>>layout.BlockShift, uint64(len(fs.lanes))*laneStage>>layout.BlockShift)
	for len(fs.stages) > 0 {
		fs.alloc.Free(uint64(<-fs.stages)>>layout.BlockShift, stageSize>>layout.BlockShift)
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
func (t *tx) commitLogged(seq uint64) error {
	l, fs := t.lane, t.lane.fs
	h := layout.RecordHeader{Seq: seq, At: l.stage}
	for _, d := range t.data {
		h.Data += uint32(len(d.b))
	}
	if layout.TablesSize(t.n, len(t.data))+int(h.Data) > laneStage {
		h.At = <-fs.stages
		defer func() { fs.stages <- h.At }()
		if err := fs.failure(); err != nil {
			return err // the record whose body stands there may not be retired
		}
	}
	slot := l.slotOff()
	rec := t.buildRecord(&h)

	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err := t.storeBody(h.At, rec[layout.LineSize:])
	if err != nil {
		return fs.shutdown(err)
	}
	fs.r.Fence()
	if err = fs.r.NTStore(slot, rec[:layout.LineSize]); err != nil {
		return fs.shutdown(err)
	}
	fs.r.Fence()
	l.seq.Store(seq)
	l.prev = l.prev[:0]
	if err = t.storeInPlace(); err != nil {
		return fs.shutdown(err)
	}
	fs.r.Fence()
	if err = fs.clearSlot(slot); err != nil {
		return fs.shutdown(err)
	}
	fs.r.Fence()
	clear(t.data) // the caller's
	return nil
}

// storeBody is step 1 of commitLogged.
func (t *tx) storeBody(at int64, tables []byte) error {
	r := t.lane.fs.r
	for _, off := range t.lane.prev {
		if err := r.Flush(off, layout.LineSize); err != nil {
			return err
		}
	}
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

// storeInPlace is step 3.
func (t *tx) storeInPlace() error {
	r := t.lane.fs.r
	for i := 0; i < t.n; i++ {
		if err := r.Store(t.offs[i], t.line[i][:]); err != nil {
			return err
		}
		if err := r.Flush(t.offs[i], layout.LineSize); err != nil {
			return err
		}
	}
	for _, d := range t.data {
		if err := r.NTStore(d.off, d.b); err != nil {
			return err
		}
	}
	return nil
}

// overwriteLogged is the overwrite that is all or nothing. A truncation waits for it.
func (fs *FS) overwriteLogged(ctx *Context, in *inode, off int64, data []byte) (done bool, err error) {
	in.mu.RLock()
	defer in.mu.RUnlock()
	if len(data) > AtomicUnit || off+int64(len(data)) > int64(in.core.Size) || !in.mapped(off, int64(len(data))) {
		return false, nil
	}
	t := fs.begin(ctx)
	for len(data) > 0 {
		e, _ := in.space.Lookup(uint64(off) >> layout.BlockShift)
		n := min(int64(len(data)), int64(e.End())<<layout.BlockShift-off)
		t.data = append(t.data, dataPiece{regionOff(e, off), data[:n]})
		off, data = off+n, data[n:]
	}
	return true, t.commit()
}
