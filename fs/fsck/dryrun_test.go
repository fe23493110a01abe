package fsck_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"

	"github.com/daxfsd/daxfsd/fs"
	"github.com/daxfsd/daxfsd/fs/fsck"
	"github.com/daxfsd/daxfsd/fs/layout"
	"github.com/daxfsd/daxfsd/pmem"
)

// repair makes a dry run and then a repair. The dry run must have changed nothing, and reported the
// same.
func (w *world) repair(o fsck.Options) (*fsck.Report, error) {
	w.Helper()
	before := bytes.Clone(w.R.Bytes(0, size))
	o.Repair = false
	dry, dryErr := fsck.Check(w.R, o)
	if !bytes.Equal(before, w.R.Bytes(0, size)) {
		w.Error("a dry run wrote to the region")
	}
	o.Repair = true
	rep, err := fsck.Check(w.R, o)
	if err != nil {
		return nil, err
	}
	if dryErr != nil {
		w.Fatalf("the dry run failed, the repair did not: %v", dryErr)
	}
	w.sameAs(dry, rep)
	return rep, nil
}

// sameAs fails if a dry run and a repair report different problems or counts.
func (w *world) sameAs(dry, rep *fsck.Report) {
	w.Helper()
	if rep.Fixable != 0 || dry.Repaired != 0 || dry.Fixable != rep.Repaired || dry.Left != rep.Left+rep.Repaired {
		w.Errorf("the dry run says %d repaired, %d left, %d of them fixable; the repair %d repaired, %d left, %d of them fixable",
			dry.Repaired, dry.Left, dry.Fixable, rep.Repaired, rep.Left, rep.Fixable)
	}
	done := *dry
	done.Repaired, done.Left, done.Fixable, done.Problems = dry.Fixable, dry.Left-dry.Fixable, 0, mended(dry.Problems)
	if reflect.DeepEqual(&done, rep) {
		return
	}
	for i := range max(len(done.Problems), len(rep.Problems)) {
		switch {
		case i >= len(rep.Problems):
			w.Errorf("problem %d: the repair does not say %v", i, done.Problems[i])
		case i >= len(done.Problems):
			w.Errorf("problem %d: the dry run does not say %v", i, rep.Problems[i])
		case done.Problems[i] != rep.Problems[i]:
			w.Errorf("problem %d: the dry run says %+v\nthe repair %+v", i, done.Problems[i], rep.Problems[i])
		default:
			continue
		}
		break
	}
	real := *rep
	done.Problems, real.Problems = nil, nil
	w.Errorf("the dry run reports %+v\nthe repair %+v", done, real)
}

// mended returns a dry run's list of problems as the repair reports them.
func mended(list []fsck.Problem) []fsck.Problem {
	list = slices.Clone(list)
	for i := range list {
		list[i].Fixed, list[i].Fixable = list[i].Fixable, false
	}
	return list
}

// onlyRead is a region that is open read-only, and its file.
type onlyRead struct {
	*pmem.Region
	file *os.File
}

// regionsOnlyRead returns an emulated region and one like device-dax, both open read-only.
func regionsOnlyRead(t *testing.T) map[string]onlyRead {
	t.Helper()
	out := map[string]onlyRead{}
	for _, kind := range []string{"file", "devdax"} {
		path := filepath.Join(t.TempDir(), kind)
		f, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		if err := f.Truncate(size); err != nil {
			t.Fatal(err)
		}
		var o pmem.Options
		if kind == "devdax" {
			if o, _, err = pmem.FakeDevDax(t.TempDir(), path); err != nil {
				t.Fatal(err)
			}
		}
		o.ReadOnly = true
		r, err := pmem.Open(path, o)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { r.Close() })
		if !r.ReadOnly() || (r.Kind() == pmem.KindDevDax) != (kind == "devdax") {
			t.Fatalf("region %s is of kind %v, read-only: %v", kind, r.Kind(), r.ReadOnly())
		}
		out[kind] = onlyRead{r, f}
	}
	return out
}

// become copies image to the region's file.
func (o onlyRead) become(t *testing.T, image []byte) {
	t.Helper()
	for off := int64(0); off < size; off += layout.BlockSize {
		if b := image[off : off+layout.BlockSize]; !bytes.Equal(b, o.Bytes(off, layout.BlockSize)) {
			if _, err := o.file.WriteAt(b, off); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestDryRun checks for each kind of damage that a dry run reports the same problems as the repair,
// in the same order and with the same text, and stores nothing, even on a read-only region. After
// the repair a dry run reports the remaining problems.
func TestDryRun(t *testing.T) {
	type harm struct {
		name string
		do   func(c *crafter)
	}
	var harms []harm
	for _, d := range damages {
		harms = append(harms, harm{d.name, func(c *crafter) { d.do(c.world) }})
	}
	if !testing.Short() { // FuzzDamage and FuzzCraft make dry runs of their seeds, too
		for i, script := range damageSeeds {
			harms = append(harms, harm{fmt.Sprint("FuzzDamage ", i), func(c *crafter) { c.harm(script) }})
		}
		for i, script := range craftSeeds() {
			harms = append(harms, harm{fmt.Sprint("FuzzCraft ", i), func(c *crafter) { c.craft(script) }})
		}
	}
	harms = append(harms,
		harm{"nothing", func(*crafter) {}},
		harm{"all names of a directory, and its own", func(c *crafter) {
			c.smash(c.inode("/many"))
			c.smash(c.dentry("/", "deep0"))
			for i := range 20 {
				c.smash(c.dentry("/many", fmt.Sprint(string(bytes.Repeat([]byte("n"), i*2)), i)))
			}
		}},
		harm{"committed records", func(c *crafter) {
			c.Mount()
			c.OK(c.FS.Lookup(&c.Ctx, c.Ino("/d"), "g", new(fs.Attr)))
			c.Unlink("/d/g")
			c.Crash()
			c.smash(c.inode("/deep0"))
		}},
		harm{"data in a record", func(c *crafter) { c.logged("/f", 5000, bytes.Repeat([]byte("R"), 3000)) }})
	regions := regionsOnlyRead(t)
	c := newCrafter(t)
	more := 0
	for _, h := range harms {
		t.Run(h.name, func(t *testing.T) {
			c.TB = t
			defer c.restore(c.image)
			h.do(c)
			image := bytes.Clone(c.R.Bytes(0, size))
			check := func(r *pmem.Region, repair bool) (rep *fsck.Report, said []fsck.Problem, err error) {
				rep, err = fsck.Check(r, fsck.Options{Sleep: noSleep, Repair: repair, Takeover: true, Found: func(p fsck.Problem) { said = append(said, p) }})
				return rep, said, err
			}
			dry, saidDry, dryErr := check(c.R, false)
			if !bytes.Equal(image, c.R.Bytes(0, size)) {
				t.Error("a dry run wrote to the region")
			}
			for kind, r := range regions {
				r.become(t, image)
				got, said, err := check(r.Region, false)
				if !bytes.Equal(image, r.Bytes(0, size)) {
					t.Errorf("%s: a dry run wrote to the region", kind)
				}
				if (err == nil) != (dryErr == nil) || !reflect.DeepEqual(got, dry) || !slices.Equal(said, saidDry) {
					t.Errorf("%s, read-only: %v, %+v\nexpected %v, %+v", kind, err, got, dryErr, dry)
				}
			}
			rep, said, err := check(c.R, true)
			if err != nil { // fsck cannot repair this image
				if dry != nil && dry.Fixable > 0 {
					t.Errorf("the repair: %v; the dry run: %v", err, dry.Problems)
				}
				return
			}
			if dryErr != nil {
				t.Fatalf("the dry run failed, the repair did not: %v", dryErr)
			}
			c.sameAs(dry, rep)
			if !slices.Equal(mended(saidDry), said) {
				t.Errorf("the dry run said %v, the repair %v", saidDry, said)
			}
			more += max(0, rep.Repaired-1)
			again, _, err := check(c.R, false)
			if err != nil {
				t.Fatal(err)
			}
			var left []fsck.Problem
			for _, p := range rep.Problems {
				if !p.Fixed {
					left = append(left, p)
				}
			}
			now := slices.DeleteFunc(slices.Clone(again.Problems), func(p fsck.Problem) bool { return len(left) > 0 && p.Code == fsck.OwnerDamaged })
			if !slices.Equal(now, left) {
				t.Errorf("after the repair there is %v, it has left %v", again.Problems, left)
			}
		})
	}
	if more < 30 && !testing.Short() {
		t.Errorf("only %d problems came with others", more)
	}
}

// logged writes a committed record with data for byte at of the file at path.
func (c *crafter) logged(path string, at int64, data []byte) {
	body := int64(c.sb.Blocks()-100) << layout.BlockShift
	slot, seq := c.sb.LaneOff, uint64(1<<30)
	tables := make([]byte, layout.TablesSize(0, 1))
	to := int64(c.slot(path, 0).Block)<<layout.BlockShift + at
	binary.LittleEndian.PutUint64(tables, uint64(to))
	binary.LittleEndian.PutUint64(tables[8:], uint64(len(data)))
	h := layout.RecordHeader{Seq: seq, At: body, Pieces: 1, Data: uint32(len(data)), BodyCRC: layout.Checksum(c.seed, tables)}
	var l layout.Line
	h.Put(&l, c.seed, slot)
	c.Store(body, append(tables, data...))
	c.Store(slot, l[:])
}

// TestTruncateMany checks that an interrupted truncation of more lines than a journal record holds
// is finished.
func TestTruncateMany(t *testing.T) {
	w := build(t)
	before := w.check(false)
	w.mounted(func() {
		w.file("/c", 1)
		for i := 1; i < 600; i++ {
			w.write("/c", int64(i)*8192, 1)
		}
	})
	if n := layout.MaxRecordLines(w.sb.LaneSlot); n*layout.ExtentsPerLine >= 599 {
		t.Fatalf("a record holds %d lines: all", n)
	}
	w.core("/c", func(c *layout.Core) { c.Size, c.Format = 10, layout.FormatTruncating })
	if rep := w.check(true); rep.ExitCode() != 1 || rep.Truncations != 1 || rep.DataBlocks != before.DataBlocks+1 {
		t.Errorf("exit code %d, %d truncations, %d data blocks, expected %d: %v", rep.ExitCode(), rep.Truncations, rep.DataBlocks, before.DataBlocks+1, rep.Problems)
	}
	if rep := w.check(false); len(rep.Problems) > 0 {
		t.Errorf("after the repair: %v", rep.Problems)
	}
	w.verify("")
}
