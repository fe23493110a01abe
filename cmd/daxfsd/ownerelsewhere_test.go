package main

import (
	"encoding/binary"
	"errors"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/daxfsd/daxfsd/fs"
	"github.com/daxfsd/daxfsd/fs/layout"
	"github.com/daxfsd/daxfsd/pmem"
)

// useElsewhere writes to a file the owner record and the heartbeat of a daemon in another
// container, which has a device node of its own for the region, and thus another lock.
func useElsewhere(t *testing.T, path string) {
	t.Helper()
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	var block [layout.SuperSize]byte
	if _, err := file.ReadAt(block[:], 0); err != nil {
		t.Fatal(err)
	}
	super, err := layout.DecodeSuper(block[:], 0)
	if err != nil {
		t.Fatal(err)
	}
	write := func(off int64, seq uint64, put func(*layout.Line)) {
		var line layout.Line
		put(&line)
		line.Seal(layout.Seed(super.UUID), off, seq)
		if _, err := file.WriteAt(line[:], off); err != nil {
			t.Error(err)
		}
	}
	machine, boot := pmem.HostIdentity()
	record := layout.Owner{Machine: [8]byte(machine[:8]), Mount: [8]byte{1}, Boot: boot, PID: 4711, Start: 1, State: layout.OwnerMounted}
	beat := layout.Beat{Mount: record.Mount, Ino: 1, PIDNS: 1, Interval: 50}
	next := func() {
		beat.Count++
		write(super.BeatOff(), beat.Count, beat.Put)
	}
	next()
	write(super.OwnerOff, 100, record.Put)
	stop, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-stop:
				return
			case <-time.After(50 * time.Millisecond):
				next()
			}
		}
	}()
	t.Cleanup(func() { close(stop); <-ended; file.Close() })
}

// newerFormat makes the filesystem in a file one that only a newer daxfsd understands.
func newerFormat(t *testing.T, path string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	end, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		t.Fatal(err)
	}
	for _, off := range []int64{0, end - layout.BlockSize} {
		var b [layout.SuperSize]byte
		if _, err := f.ReadAt(b[:], off); err != nil {
			t.Fatal(err)
		}
		b[39] |= 0x80 // the highest incompatible feature
		binary.LittleEndian.PutUint32(b[508:], layout.Checksum(0, b[:508]))
		if _, err := f.WriteAt(b[:], off); err != nil {
			t.Fatal(err)
		}
	}
}

// TestMkfsUnreadable checks that mkfs --force does not treat what it cannot judge as unused.
func TestMkfsUnreadable(t *testing.T) {
	t.Parallel()
	newer := newRegion(t)
	newerFormat(t, newer)
	before := digest(t, newer)
	refused(t, daxfsd(t, "mkfs", "--force", newer), 1, newer, "newer daxfsd", "--takeover")
	if digest(t, newer) != before {
		t.Error("a filesystem of a newer format was changed")
	}
	must(t, "mkfs", "--force", "--takeover", newer)

	cut := newRegion(t)
	useElsewhere(t, cut)
	if err := os.Truncate(cut, fs.MinSize); err != nil {
		t.Fatal(err)
	}
	refused(t, daxfsd(t, "mkfs", "--force", cut), 1, cut, "in use")
	refused(t, daxfsd(t, "mkfs", "--force", "--takeover", cut), 1, cut, "in use")

	cut = newRegion(t) // and a clean one
	if err := os.Truncate(cut, fs.MinSize); err != nil {
		t.Fatal(err)
	}
	must(t, "mkfs", "--force", cut)
}

// TestMkfsTakenMeanwhile checks that mkfs does not change a region that is mounted through another
// node while it allocates, whether the region held a filesystem before or zeros.
func TestMkfsTakenMeanwhile(t *testing.T) {
	for _, force := range []bool{true, false} {
		path := newRegion(t)
		if !force {
			st, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(os.Truncate(path, 0), os.Truncate(path, st.Size())); err != nil {
				t.Fatal(err)
			}
		}
		f := &mkfsFlags{force: force, sparse: true}
		noProgress := func(string, int64, int64) {}
		h, r, err := regionForMkfs(path, f, noProgress)
		if err != nil {
			t.Fatal(err)
		}
		defer h.Close()
		defer r.Close()
		if !force {
			if _, err := fs.Mkfs(r, fs.MkfsOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		useElsewhere(t, path)
		sb, err := f.format(path, h, r, fs.MkfsOptions{}, noProgress)
		if !errors.Is(err, fs.ErrInUse) {
			t.Errorf("force %v: superblock %v, error %v; want %v", force, sb, err, fs.ErrInUse)
		}
	}
}

// TestOwnerLost checks a mount whose region another process has taken: it answers nothing any more,
// info says why without a log, and umount removes it.
func TestOwnerLost(t *testing.T) {
	t.Parallel()
	region, mp := mounted(t)
	writeFile(t, mp+"/f", content)
	if err := os.Mkdir(mp+"/dir", 0o755); err != nil {
		t.Fatal(err)
	}
	useElsewhere(t, region)
	var i map[string]any
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		i = decode(t, must(t, "info", "--json", mp))
		if note, _ := i["note"].(string); strings.Contains(note, "4711") && strings.Contains(note, "unmount") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("info does not tell: %v", i)
		}
	}
	if text := must(t, "info", mp); !strings.Contains(text, "4711") {
		t.Errorf("info says %q", text)
	}
	if _, err := os.ReadDir(mp + "/dir"); !errors.Is(err, syscall.EIO) {
		t.Errorf("a directory could be read: %v, want EIO", err)
	}
	if _, err := os.Stat(mp + "/other"); !errors.Is(err, syscall.EIO) {
		t.Errorf("a name could be looked up: %v, want EIO", err)
	}
	must(t, "umount", mp)
}
