package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/daxfsd/daxfsd/fs/fsck"
	"github.com/daxfsd/daxfsd/test/harness"
)

// TestBadMemory truncates the region file under a live mount, so that reading one block of a file
// raises SIGBUS as poison does, and then restores it. The block is lost: reads return EIO, also
// after a remount, and fsck names the file. Overwriting the file takes the block out of use, and
// the filesystem is whole again.
func TestBadMemory(t *testing.T) {
	const size, blocks = 64 << 20, 64
	eachTransport(t, size, 2*time.Minute, func(t *testing.T, m *harness.Mount) {
		if err := os.Mkdir(m.Path("dir"), 0o755); err != nil {
			t.Fatal(err)
		}
		var content []byte
		for i := range blocks {
			content = append(content, bytes.Repeat(fmt.Appendf(nil, "bad block %05d\n", i), 256)...)
		}
		content = content[:len(content)-1000]
		path := m.Path("dir", "file")
		for _, p := range []string{m.Path("keep"), path} {
			if err := os.WriteFile(p, content, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		image, err := os.ReadFile(m.Region)
		if err != nil {
			t.Fatal(err)
		}
		const bad = blocks - 1
		at := int64(bytes.LastIndex(image, content[bad<<12:])) // in the later one of the two files
		if at < 0 || at%4096 != 0 {
			t.Fatalf("the last block of the file is at %d of the region", at)
		}
		if err := os.Truncate(m.Region, at); err != nil {
			t.Fatal(err)
		}
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		got := make([]byte, 4096)
		if n, err := f.ReadAt(got, bad<<12); !errors.Is(err, syscall.EIO) {
			t.Errorf("reading what is gone: %d bytes, %v", n, err)
		}
		m.Alive()
		r, err := os.OpenFile(m.Region, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		if _, err := r.WriteAt(image[at:], at); err != nil {
			t.Fatal(err)
		}
		still := func(when string) {
			t.Helper()
			if _, err := f.ReadAt(got, bad<<12); !errors.Is(err, syscall.EIO) {
				t.Errorf("%s: reading the bad block: %v", when, err)
			}
			if n, err := f.WriteAt([]byte("x"), bad<<12+7); !errors.Is(err, syscall.EIO) {
				t.Errorf("%s: writing into the bad block: %d, %v", when, n, err)
			}
			if n, err := f.ReadAt(got, 0); err != nil || !bytes.Equal(got, content[:4096]) {
				t.Errorf("%s: reading another block: %d, %v", when, n, err)
			}
			if b, err := os.ReadFile(m.Path("keep")); err != nil || !bytes.Equal(b, content) {
				t.Errorf("%s: reading another file: %d bytes, %v", when, len(b), err)
			}
			if s := m.Stats(); s.BadRanges != 1 || s.BadBytes != 4096 || s.OfflineBytes != 0 {
				t.Errorf("%s: %d bad ranges, %d bytes, %d retired", when, s.BadRanges, s.BadBytes, s.OfflineBytes)
			}
		}
		still("the file is back")
		f.Close()
		m.Umount()
		out, err := harness.Command(time.Minute, "", nil, harness.Daxfsd, "fsck", "-n", "--json", m.Region)
		var rep fsck.Report
		if e := json.Unmarshal([]byte(out), &rep); e != nil || err == nil {
			t.Fatalf("fsck: %v, %v: %s", err, e, out)
		}
		if len(rep.Problems) != 1 || rep.Problems[0].Code != fsck.LostData || rep.Problems[0].Path != "/dir/file" ||
			rep.Problems[0].FileOffset != bad<<12 || rep.Problems[0].Bytes != 4096-1000 || rep.ExitCode() != 4 {
			t.Errorf("fsck: %s", out)
		}
		m.Up()
		if f, err = os.OpenFile(path, os.O_RDWR, 0); err != nil {
			t.Fatal(err)
		}
		still("mounted again")
		if _, err := f.WriteAt(content, 0); err != nil {
			t.Errorf("overwriting the file: %v", err)
		}
		if b, err := os.ReadFile(path); err != nil || !bytes.Equal(b, content) {
			t.Errorf("the file after that: %d bytes, %v", len(b), err)
		}
		f.Close()
		if s := m.Stats(); s.OfflineBytes != 4096 {
			t.Errorf("%d bytes are retired", s.OfflineBytes)
		}
		m.Umount()
		if out := harness.Run(t, time.Minute, "", nil, harness.Daxfsd, "fsck", "-n", m.Region); !strings.Contains(out, "clean") {
			t.Error(out)
		}
		if out := harness.Run(t, time.Minute, "", nil, harness.Daxfsd, "info", "--json", m.Region); !strings.Contains(out, `"bad_bytes": 4096`) {
			t.Error(out)
		}
	})
}
