package guest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/daxfsd/daxfsd/direct"
	"github.com/daxfsd/daxfsd/test/harness"
	"github.com/daxfsd/daxfsd/test/oracle"
)

// The storer of the power cut is a program that has grants. Its file is divided into sections, and
// these into cells of a block. Store k, from 1 on, fills a cell with the number k. The first half
// of a section is mapped, and stored to with flush and fence; the other half is written by WriteAt.
// When the store is durable, the storer tells the host. So the number of the last store that the
// host knows of says what every byte of the file must be.
const (
	storeName     = "stored"
	storeCells    = 64 // in a section
	storeSections = 12
	storeCell     = 4096 // bytes
	storeSection  = 4 * mib
	storeStride   = storeSection / storeCells
)

// storePlace returns the section of store k and the offset of its cell in the file.
func storePlace(k int64) (section, off int64) {
	section = (k - 1) / storeCells % storeSections
	return section, section*storeSection + (k-1)%storeCells*storeStride
}

// stamp returns the content of a cell after store k; zeros for k = 0.
func stamp(k int64) []byte {
	b := make([]byte, storeCell)
	for i := 0; i < len(b); i += 8 {
		binary.LittleEndian.PutUint64(b[i:], uint64(k))
	}
	return b
}

// store is the storer: it stores until the guest dies. Arguments: mount point, port, number of the
// first store.
func store(args []string) error {
	first, err := strconv.ParseInt(args[2], 10, 64)
	if err != nil {
		return err
	}
	log, err := oracle.OpenLog(args[1])
	if err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(args[0], storeName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	d, err := direct.Open(f)
	if err != nil {
		return err
	}
	var m *direct.Mapping
	mapped := int64(-1) // section
	for k := first; ; k++ {
		section, off := storePlace(k)
		if section != mapped {
			if m != nil {
				if err := m.Close(); err != nil {
					return err
				}
			}
			if err := extend(d, section); err != nil {
				return err
			}
			m, err = d.Map(section*storeSection, storeSection/2, direct.MapOptions{Write: true, Allocate: true, PageSize: 2 * mib})
			if err != nil {
				return err
			}
			mapped = section
		}
		op := oracle.Op{N: int(k), Kind: "store"}
		if err := log.Calling(op); err != nil {
			return err
		}
		if at := off - section*storeSection; at < storeSection/2 {
			copy(m.Bytes()[at:], stamp(k))
			err = m.Flush(at, storeCell)
		} else {
			_, err = d.WriteAt(stamp(k), off)
		}
		if err != nil {
			return err
		}
		if err := log.Returned(op, storeCell); err != nil {
			return err
		}
	}
}

// extend makes the file long enough for a section. The half that is to be mapped is a hole then, so
// that the grant allocates; the other half gets blocks.
func extend(d *direct.File, section int64) error {
	end := (section + 1) * storeSection
	if size, err := d.Size(); err != nil || size >= end {
		return err
	} else if size < end-storeSection/2 {
		if err := d.Truncate(end - storeSection/2); err != nil {
			return err
		}
	}
	return d.Grow(end)
}

// checkStored compares the storer's file with what it must be after store last, which the host
// knows of; the next one may have happened in part. It reads the file through the mount and
// directly.
func checkStored(t *testing.T, mount *harness.Mount, last int64) {
	t.Helper()
	f, err := os.Open(mount.Path(storeName))
	if errors.Is(err, os.ErrNotExist) && last == 0 {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	d, err := direct.Open(f)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	size, err := d.Size()
	if section, _ := storePlace(max(last, 1)); err != nil || last > 0 && size < (section+1)*storeSection || size > storeSections*storeSection {
		t.Fatalf("%s has %d bytes after %d stores (%v)", storeName, size, last, err)
	}
	want := make([]byte, size)
	const all = storeCells * storeSections
	for k := max(1, last-all+1); k <= last; k++ {
		_, off := storePlace(k)
		copy(want[off:], stamp(k))
	}
	_, flight := storePlace(last + 1)
	for what, r := range map[string]io.ReaderAt{"the mount": f, "a grant": d} {
		got := make([]byte, size)
		if _, err := r.ReadAt(got, 0); err != nil && err != io.EOF {
			t.Fatal(err)
		}
		if flight < size {
			cell, next := want[flight:flight+storeCell], stamp(last+1)
			for i := 0; i < storeCell; i += 8 { // each number is stored at once
				if bytes.Equal(got[int(flight)+i:int(flight)+i+8], next[i:i+8]) {
					copy(cell[i:], next[i:i+8])
				}
			}
		}
		for off := int64(0); off < size; off += storeCell {
			if a, b := got[off:off+storeCell], want[off:off+storeCell]; !bytes.Equal(a, b) {
				i := 0
				for a[i] == b[i] {
					i++
				}
				i &^= 7
				t.Errorf("after %d stores byte %d of %s reads by %s as %d, want %d", last, off+int64(i), storeName, what,
					binary.LittleEndian.Uint64(a[i:]), binary.LittleEndian.Uint64(b[i:]))
				break
			}
		}
	}
	if t.Failed() {
		fmt.Println(harness.Command(limit, "", nil, harness.Daxfsd, "filefrag", mount.Path(storeName)))
	}
}
