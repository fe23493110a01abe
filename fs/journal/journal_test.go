package journal_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/daxfsd/daxfsd/fs/journal"
	"github.com/daxfsd/daxfsd/fs/layout"
	"github.com/daxfsd/daxfsd/pmem"
)

// media is a region with empty lanes, and 8 blocks of formatted lines behind the fixed area.
type media struct {
	*testing.T
	r  *pmem.Region
	sb *layout.Superblock
}

func newMedia(t *testing.T, lanes uint16) *media {
	t.Helper()
	r, err := pmem.NewMemory(layout.MinSize)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	m := &media{t, r, &layout.Superblock{UUID: [16]byte{1}, Size: layout.MinSize, ChunkShift: layout.ChunkShift, PUDShift: layout.PUDShift, Lanes: lanes}}
	m.sb.Place()
	j := m.journal(journal.Hooks{})
	for i := int64(0); i < 8; i++ {
		m.ok(j.FormatBlock(m.sb.StaticEnd+i*layout.BlockSize, nil))
	}
	return m
}

func (m *media) ok(err error) {
	m.Helper()
	if err != nil {
		m.Fatal(err)
	}
}

func (m *media) journal(h journal.Hooks) *journal.Journal { return journal.New(m.r, m.sb, true, h) }

// at returns the region offset of the i-th formatted line.
func (m *media) at(i int64) int64 { return m.sb.StaticEnd + i*layout.LineSize }

// set changes the given lines to value in one transaction, on lane 0.
func (m *media) set(j *journal.Journal, value byte, lines ...int64) {
	m.Helper()
	t := j.Begin(0)
	for _, i := range lines {
		t.At(m.at(i)).Payload()[0] = value
	}
	m.ok(t.Commit())
}

// want fails the test unless line i is valid and has the value.
func (m *media) want(i int64, value byte) {
	m.Helper()
	var l layout.Line
	m.ok(m.journal(journal.Hooks{}).ReadLine(m.at(i), &l))
	if l.Payload()[0] != value {
		m.Errorf("line %d has value %d, want %d", i, l.Payload()[0], value)
	}
}

// lose runs change and then restores the formatted lines, but not the lanes: a crash in which only
// the records became durable.
func (m *media) lose(change func()) {
	m.Helper()
	before := bytes.Clone(m.r.Bytes(m.sb.StaticEnd, 8*layout.BlockSize))
	change()
	m.ok(m.r.Store(m.sb.StaticEnd, before))
}

// recover replays the journal and fails the test unless it replays n records.
func (m *media) recover(n int) (seq uint64) {
	m.Helper()
	got, seq, err := m.journal(journal.Hooks{}).Recover()
	if m.ok(err); got != n {
		m.Errorf("%d records replayed, want %d", got, n)
	}
	return seq
}

// TestTransaction checks that the lines of a transaction change together, with one sequence, which
// is the journal's.
func TestTransaction(t *testing.T) {
	m := newMedia(t, 1)
	j := m.journal(journal.Hooks{})
	m.set(j, 7, 0, 100)
	m.want(0, 7)
	m.want(100, 7)
	a := j.Begin(0)
	a.At(m.at(0)).Payload()[0] = 8
	a.Abort()
	m.want(0, 7)
	var l layout.Line
	if m.ok(j.ReadLine(m.at(100), &l)); l.Seq() != j.Seq() || j.Seq() == 0 {
		t.Errorf("sequence of the line %d, of the journal %d", l.Seq(), j.Seq())
	}
}

// TestReplay checks that committed records are replayed once, in the order of their transactions.
func TestReplay(t *testing.T) {
	m := newMedia(t, 1)
	m.lose(func() {
		j := m.journal(journal.Hooks{})
		m.set(j, 1, 0, 1)
		m.set(j, 2, 1, 2)
	})
	m.want(1, 0)
	if n, err := m.journal(journal.Hooks{}).Pending(); n != 2 || err != nil {
		t.Errorf("%d records pending, error %v, want 2", n, err)
	}
	if seq := m.recover(2); seq != 2 {
		t.Errorf("sequence %d, want 2", seq)
	}
	for i, v := range []byte{1, 2, 2} {
		m.want(int64(i), v)
	}
	m.recover(0)
}

// TestTornRecord checks that a record is ignored if any of its lines did not become durable.
func TestTornRecord(t *testing.T) {
	const lines = 3
	for i := range int64(layout.RecordSize(lines) / layout.LineSize) {
		m := newMedia(t, 1)
		m.lose(func() { m.set(m.journal(journal.Hooks{}), 1, 0, 1, 2) })
		m.ok(m.r.Store(m.sb.LaneOff+i*layout.LineSize, make([]byte, layout.LineSize)))
		m.recover(0)
		for j := range int64(lines) {
			m.want(j, 0)
		}
	}
}

// TestOlderRecord checks that a record does not roll back a newer change made by another lane.
func TestOlderRecord(t *testing.T) {
	m := newMedia(t, 2)
	j := m.journal(journal.Hooks{})
	m.set(j, 1, 0)
	busy := j.Begin(0) // so that the next transaction takes the other lane
	m.set(j, 2, 0)
	busy.Abort()
	m.recover(2)
	m.want(0, 2)
}

// TestCheckpoint checks that after a checkpoint there is no record, and that the lines do not need
// one.
func TestCheckpoint(t *testing.T) {
	m := newMedia(t, 2)
	j := m.journal(journal.Hooks{})
	m.set(j, 1, 0, 1, 2)
	m.ok(j.Checkpoint())
	m.recover(0)
	m.want(2, 1)
}

// TestLogged checks that a transaction with file data and more lines than a slot holds is replayed
// completely.
func TestLogged(t *testing.T) {
	m := newMedia(t, 1)
	j := m.journal(journal.Hooks{})
	large := m.sb.StaticEnd + 1<<20
	j.UseBodies(large-j.LaneBodies(), []int64{large})
	n := int64(layout.MaxRecordLines(m.sb.LaneSlot)) + 1
	data := bytes.Repeat([]byte{9}, 3*layout.BlockSize)
	file := large + 2*journal.BodySize
	cut := &committed{m: m}
	m.r.SetRecorder(cut)
	x := j.Begin(0)
	for i := range n {
		x.At(m.at(i)).Payload()[0] = 5
	}
	x.AddData(journal.Data{Off: file, Bytes: data})
	m.ok(x.Commit())
	m.r.SetRecorder(nil)
	m.ok(m.r.Store(0, cut.img))
	m.want(0, 0)
	m.recover(1)
	m.want(n-1, 5)
	if got := m.r.Bytes(file, int64(len(data))); !bytes.Equal(got, data) {
		t.Error("the data was not replayed")
	}
}

// committed is a recorder that keeps the region as it is after the fence that commits the first
// record.
type committed struct {
	m      *media
	header bool
	img    []byte
}

func (c *committed) Begin(int)                {}
func (c *committed) Store(int, int64, []byte) {}
func (c *committed) Flush(int, int64, int64)  {}
func (c *committed) NTStore(_ int, off int64, _ []byte) {
	c.header = c.header || off >= c.m.sb.LaneOff && off < c.m.sb.ChunkMapOff
}
func (c *committed) Fence(int) {
	if c.header && c.img == nil {
		c.img = bytes.Clone(c.m.r.Bytes(0, c.m.sb.Size))
	}
}

// TestFailure checks that no transaction changes anything after Fail, and that Failure returns the
// first reason.
func TestFailure(t *testing.T) {
	m := newMedia(t, 1)
	j := m.journal(journal.Hooks{})
	why := errors.New("why")
	if j.Failed() || !j.Fail(why) || j.Fail(errors.New("later")) || !j.Failed() || j.Failure() != why {
		t.Errorf("failed %v, because of %v", j.Failed(), j.Failure())
	}
	x := j.Begin(0)
	x.At(m.at(0)).Payload()[0] = 1
	if err := x.Commit(); err != journal.ErrFailed || journal.Happened(err) {
		t.Errorf("commit after a failure: %v", err)
	}
	m.want(0, 0)
}

// TestDamagedLine checks that a transaction that needs a line with a wrong checksum has no effect
// and fails with ErrDamaged.
func TestDamagedLine(t *testing.T) {
	m := newMedia(t, 1)
	m.ok(m.r.Store(m.at(1)+8, []byte("8 bytes!")))
	reported := 0
	j := m.journal(journal.Hooks{Damaged: func(err error) error { reported++; return err }})
	x := j.Begin(0)
	x.At(m.at(0)).Payload()[0] = 1
	x.At(m.at(1)).Payload()[0] = 1
	if err := x.Commit(); !errors.Is(err, layout.ErrDamaged) || reported != 1 {
		t.Errorf("commit: %v, reported %d times", err, reported)
	}
	m.want(0, 0)
}

// TestTooManyLines checks that a transaction of more lines than a record holds has no effect.
func TestTooManyLines(t *testing.T) {
	m := newMedia(t, 1)
	x := journal.New(m.r, m.sb, false, journal.Hooks{}).Begin(0)
	for i := int64(0); x.Room() > 0; i++ {
		x.At(m.at(i)).Payload()[0] = 1
	}
	x.At(m.at(500)).Payload()[0] = 1
	if x.Commit() == nil {
		t.Error("it was committed")
	}
	m.want(0, 0)
}

// TestCommitAllocs checks that a transaction allocates nothing, whether logged or not.
func TestCommitAllocs(t *testing.T) {
	m := newMedia(t, 1)
	j := m.journal(journal.Hooks{})
	large := m.sb.StaticEnd + 1<<20
	j.UseBodies(0, []int64{large})
	data := make([]byte, layout.BlockSize)
	for name, d := range map[string][]journal.Data{"lines": nil, "data": {{Off: large + journal.BodySize, Bytes: data}}} {
		if n := testing.AllocsPerRun(100, func() {
			x := j.Begin(0)
			x.At(m.at(0)).Payload()[0]++
			x.At(m.at(70)).Payload()[0]++
			x.AddData(d...)
			m.ok(x.Commit())
		}); n > 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}
