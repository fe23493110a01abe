package fsck

import (
	"errors"
	"runtime"
	"slices"
	"sort"
	"sync/atomic"
	"time"

	"github.com/daxfsd/daxfsd/fs/layout"
	"github.com/daxfsd/daxfsd/fs/owner"
	"github.com/daxfsd/daxfsd/pmem"
)

var errSum = errors.New("wrong checksum")

// media is the region as recovery would leave it, and the means to write repairs.
type media struct {
	image
	sb   *layout.Superblock
	seed uint32

	saved *layout.Owner // contains the reference to the saved free map; nil: there is no saved map
	// damaged is the owner record's flag for damage, as read or as end will write it.
	damaged bool
	seq     atomic.Uint64 // the largest sequence in use

	verdict *owner.Verdict        // the judgement of the region's last user
	begun   bool                  // begin was called; repairs may have been stored
	claim   *owner.Claim          // of this process; nil: not taken yet, or a dry run
	beat    time.Duration         // interval between heartbeats; 0: none
	lost    atomic.Pointer[error] // owner.ErrLost, once another process has taken the region

	faults faults
}

// saw raises seq to at least the given sequence. Safe for concurrent use.
func (m *media) saw(seq uint64) {
	for {
		was := m.seq.Load()
		if seq <= was || m.seq.CompareAndSwap(was, seq) {
			return
		}
	}
}

// line reads the line at region offset off. It returns errSum if the checksum is wrong.
func (m *media) line(off int64, l *layout.Line) error {
	if err := m.loadLine(off, l); err != nil {
		return m.faults.note(err)
	}
	if !l.Valid(m.seed, off) {
		return errSum
	}
	m.saw(l.Seq())
	return nil
}

// block reads a whole block, without verifying its lines.
func (m *media) block(b uint64, buf []byte) error {
	if err := m.load(int64(b)<<layout.BlockShift, buf[:layout.BlockSize]); err != nil {
		return m.faults.note(err)
	}
	return nil
}

// at returns line i of the block in buf, which is at region offset off, or nil if the line's
// checksum is wrong.
func (m *media) at(buf []byte, off int64, i int) *layout.Line {
	l := (*layout.Line)(buf[i*layout.LineSize:])
	if !l.Valid(m.seed, off+int64(i)*layout.LineSize) {
		return nil
	}
	m.saw(l.Seq())
	return l
}

// record is a committed journal record.
type record struct {
	seq    uint64
	at     int64   // region offset in bytes of its slot
	offs   []int64 // region offsets in bytes of its lines in place
	line   []layout.Line
	pieces []layout.Piece
	bad    bool // its data lies in blocks that cannot hold file data
}

// readRecords returns the committed records of all lanes, in sequence order.
func (m *media) readRecords() ([]record, error) {
	var recs []record
	slot := int64(m.sb.LaneSlot)
	for i := int64(0); i < 2*int64(m.sb.Lanes); i++ {
		at := m.sb.LaneOff + i*slot
		var l layout.Line
		if err := m.loadLine(at, &l); err != nil {
			return nil, err
		}
		var header layout.RecordHeader
		if !header.Get(&l, m.seed, at, m.sb.LaneSlot) {
			continue
		}
		n := int(header.N)
		from, ok := header.Body(m.sb, at)
		if !ok {
			recs = append(recs, record{seq: header.Seq, at: at, bad: true})
			continue
		}
		body := make([]byte, layout.TablesSize(n, int(header.Pieces)))
		if err := m.load(from, body); err != nil {
			return nil, err
		}
		if layout.Checksum(m.seed, body) != header.BodyCRC {
			continue // not committed, or partly overwritten
		}
		m.saw(header.Seq)
		rec := record{seq: header.Seq, at: at, offs: make([]int64, n), line: make([]layout.Line, n)}
		tables := header.Tables(body)
		for j := range rec.offs {
			off, l := tables.Line(j)
			rec.offs[j], rec.line[j] = off, *l
		}
		rec.pieces, ok = header.ListPieces(m.sb, from, body)
		rec.bad = !ok
		if rec.complete(m.seed) {
			recs = append(recs, rec)
		}
	}
	sort.SliceStable(recs, func(i, j int) bool { return recs[i].seq < recs[j].seq })
	return recs, nil
}

// complete reports whether every line belongs to this record. The body's checksum does not show
// that: a sealed line ends in its own crc32c, so a crc32c over the line has the same value whatever
// the line contains. So a record that is half overwritten by one with the same lines has a right
// checksum.
func (rec *record) complete(seed uint32) bool {
	for j := range rec.line {
		if rec.line[j].Seq() != rec.seq || !rec.line[j].Valid(seed, rec.offs[j]) {
			return false
		}
	}
	return true
}

// lay adds to newer those lines of the record that are newer than the lines in place, by the rules
// of recovery. It returns the region offsets of lines that must not be in a record.
func (m *media) lay(newer map[int64]*layout.Line, rec *record) (bad []int64) {
	for j, off := range rec.offs {
		l := &rec.line[j]
		if !m.mayJournal(off) {
			bad = append(bad, off)
			continue
		}
		if o := newer[off]; o != nil {
			if o.Seq() >= l.Seq() {
				continue
			}
		} else {
			var cur layout.Line
			if m.line(off, &cur) == nil && cur.Seq() >= l.Seq() {
				continue
			}
		}
		newer[off] = l
	}
	return bad
}

// mayJournal reports whether a record may change the line at region offset off: a line of the chunk
// map, or one after the fixed area.
func (m *media) mayJournal(off int64) bool {
	if off%layout.LineSize != 0 || off < 0 || off >= m.sb.DataEnd() {
		return false
	}
	return off >= m.sb.StaticEnd || off >= m.sb.ChunkMapOff && off < m.sb.ChunkMapOff+m.sb.ChunkMapLines*layout.LineSize
}

// replay writes the lines of newer and the records' data to the media, and empties the journal. It
// calls lost with data that the media cannot read or store.
//
// Persistence order, after begin:
//  1. store the lines, flush; NT-store the data; SFENCE
//  2. clear all slot headers, flush, SFENCE
func (m *media) replay(recs []record, newer map[int64]*layout.Line, lost func(p layout.Piece, err error)) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := m.begin(); err != nil {
		return err
	}
	for off, l := range newer {
		if err := m.put(off, l[:]); err != nil {
			return err
		}
	}
	var buf []byte
	for i := range recs {
		for _, p := range recs[i].pieces {
			buf = slices.Grow(buf[:0], int(p.Len))[:p.Len]
			err := m.load(p.From, buf)
			if err == nil {
				err = m.ntStore(p.Off, buf)
			}
			if errors.Is(err, pmem.ErrMedia) {
				lost(p, err)
			} else if err != nil {
				return err
			}
		}
	}
	m.fence()
	var zero layout.Line
	for i := int64(0); i < 2*int64(m.sb.Lanes); i++ {
		if err := m.put(m.sb.LaneOff+i*int64(m.sb.LaneSlot), zero[:]); err != nil {
			return err
		}
	}
	m.fence()
	return nil
}

// change is the new content of one line.
type change struct {
	off  int64
	line layout.Line
}

// commit makes the changes durable together: it writes a redo record to the first slot of the first
// lane, and then the lines in place. Precondition: the journal is empty, and there are at most
// layout.MaxRecordLines changes, one per line.
//
// Persistence order, after begin:
//  1. NT-store the record, SFENCE
//  2. store the lines in place, flush, SFENCE
//  3. clear the record's header, flush: the next commit's fence, or that of end, drains it.
//     One thread does a whole repair.
func (m *media) commit(ch []change) error {
	n := len(ch)
	if n == 0 {
		return nil
	}
	if err := m.begin(); err != nil {
		return err
	}
	if n > layout.MaxRecordLines(m.sb.LaneSlot) {
		return errors.New("repair has too many lines for one journal record")
	}
	seq := m.seq.Add(1)
	rec := make([]byte, layout.RecordSize(n))
	body := rec[layout.LineSize:]
	h := layout.RecordHeader{Seq: seq, N: uint32(n)}
	tables := h.Tables(body)
	for i := range ch {
		ch[i].line.Seal(m.seed, ch[i].off, seq)
		tables.SetLine(i, ch[i].off, &ch[i].line)
	}
	h.BodyCRC = layout.Checksum(m.seed, body)
	h.Put((*layout.Line)(rec), m.seed, m.sb.LaneOff)

	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := m.ntStore(m.sb.LaneOff, rec); err != nil {
		return err
	}
	m.fence()
	for i := range ch {
		if err := m.put(ch[i].off, ch[i].line[:]); err != nil {
			return err
		}
	}
	m.fence()
	var zero layout.Line
	return m.put(m.sb.LaneOff, zero[:])
}

// formatBlock writes 64 empty lines, modified by fill, to a block that nothing refers to yet.
//
// Persistence order: NT-store the block, SFENCE.
func (m *media) formatBlock(b uint64, fill func(buf []byte, seq uint64)) error {
	if err := m.begin(); err != nil {
		return err
	}
	seq := m.seq.Add(1)
	buf := make([]byte, layout.BlockSize)
	off := int64(b) << layout.BlockShift
	layout.FormatBlock(buf, m.seed, off, seq)
	if fill != nil {
		fill(buf, seq)
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := m.ntStore(off, buf); err != nil {
		return err
	}
	m.fence()
	return nil
}

// begin claims the filesystem for this process and drops the saved free map. After a crash it then
// counts as not unmounted. Every repair calls begin first, except the restoring of a superblock
// from the other one, which changes nothing that the owner record describes. A dry run claims
// nothing.
func (m *media) begin() error {
	if m.begun {
		if err := m.lost.Load(); err != nil {
			return *err
		}
		return nil
	}
	if seq := m.seq.Add(1); !m.dry {
		c, err := owner.Take(m.r, m.sb, m.verdict, owner.TakeOptions{Seq: seq, Interval: m.beat})
		if err != nil {
			return err
		}
		c.Start(func(err error) {
			if errors.Is(err, owner.ErrLost) {
				m.lost.Store(&err)
			}
		})
		m.claim = c
	}
	m.begun, m.saved = true, nil
	return nil
}

// end marks the filesystem as cleanly unmounted.
//
// Persistence order: what the repairs stored, SFENCE; owner.Claim.Release.
func (m *media) end() error {
	if err := m.begin(); err != nil || m.dry {
		return err
	}
	m.fence()
	if err := m.r.Sync(0, m.sb.Size); err != nil {
		return err
	}
	return m.claim.Release(m.seq.Add(1), m.damaged, layout.FreeMapRef{})
}
