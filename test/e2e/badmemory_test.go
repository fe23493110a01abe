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
	eachTransport(t, size, 2*time.Minute, func(t *testing.T, mount *harness.Mount) {
		if err := os.Mkdir(mount.Path("dir"), 0o755); err != nil {
			t.Fatal(err)
		}
		var content []byte
		for i := range blocks {
			content = append(content, bytes.Repeat(fmt.Appendf(nil, "bad block %05d\n", i), 256)...)
		}
		content = content[:len(content)-1000]
		path := mount.Path("dir", "file")
		for _, name := range []string{mount.Path("keep"), path} {
			if err := os.WriteFile(name, content, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		image, err := os.ReadFile(mount.Region)
		if err != nil {
			t.Fatal(err)
		}
		const bad = blocks - 1
		off := int64(bytes.LastIndex(image, content[bad<<12:])) // in the later one of the two files
		if off < 0 || off%4096 != 0 {
			t.Fatalf("the last block of the file is at %d of the region", off)
		}
		if err := os.Truncate(mount.Region, off); err != nil {
			t.Fatal(err)
		}
		file, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		got := make([]byte, 4096)
		if n, err := file.ReadAt(got, bad<<12); !errors.Is(err, syscall.EIO) {
			t.Errorf("reading the lost block: %d bytes, %v", n, err)
		}
		mount.Alive()
		region, err := os.OpenFile(mount.Region, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer region.Close()
		if _, err := region.WriteAt(image[off:], off); err != nil {
			t.Fatal(err)
		}
		still := func(when string) {
			t.Helper()
			if _, err := file.ReadAt(got, bad<<12); !errors.Is(err, syscall.EIO) {
				t.Errorf("%s: reading the bad block: %v", when, err)
			}
			if n, err := file.WriteAt([]byte("x"), bad<<12+7); !errors.Is(err, syscall.EIO) {
				t.Errorf("%s: writing into the bad block: %d, %v", when, n, err)
			}
			if n, err := file.ReadAt(got, 0); err != nil || !bytes.Equal(got, content[:4096]) {
				t.Errorf("%s: reading another block: %d, %v", when, n, err)
			}
			if kept, err := os.ReadFile(mount.Path("keep")); err != nil || !bytes.Equal(kept, content) {
				t.Errorf("%s: reading another file: %d bytes, %v", when, len(kept), err)
			}
			if stats := mount.Stats(); stats.BadRanges != 1 || stats.BadBytes != 4096 || stats.OfflineBytes != 0 {
				t.Errorf("%s: %d bad ranges, %d bytes, %d offline", when, stats.BadRanges, stats.BadBytes, stats.OfflineBytes)
			}
		}
		still("the file is back")
		file.Close()
		mount.Umount()
		out, err := harness.Command(time.Minute, "", nil, harness.Daxfsd, "fsck", "-n", "--json", mount.Region)
		var rep fsck.Report
		if jsonErr := json.Unmarshal([]byte(out), &rep); jsonErr != nil || err == nil {
			t.Fatalf("fsck: %v, %v: %s", err, jsonErr, out)
		}
		if len(rep.Problems) != 1 || rep.Problems[0].Code != fsck.LostData || rep.Problems[0].Path != "/dir/file" ||
			rep.Problems[0].FileOffset != bad<<12 || rep.Problems[0].Bytes != 4096-1000 || rep.ExitCode() != 4 {
			t.Errorf("fsck: %s", out)
		}
		mount.Up()
		if file, err = os.OpenFile(path, os.O_RDWR, 0); err != nil {
			t.Fatal(err)
		}
		still("mounted again")
		if _, err := file.WriteAt(content, 0); err != nil {
			t.Errorf("overwriting the file: %v", err)
		}
		if again, err := os.ReadFile(path); err != nil || !bytes.Equal(again, content) {
			t.Errorf("the file after that: %d bytes, %v", len(again), err)
		}
		file.Close()
		if stats := mount.Stats(); stats.OfflineBytes != 4096 {
			t.Errorf("%d bytes are offline, want 4096", stats.OfflineBytes)
		}
		mount.Umount()
		if out := harness.Run(t, time.Minute, "", nil, harness.Daxfsd, "fsck", "-n", mount.Region); !strings.Contains(out, "clean") {
			t.Error(out)
		}
		if out := harness.Run(t, time.Minute, "", nil, harness.Daxfsd, "info", "--json", mount.Region); !strings.Contains(out, `"bad_bytes": 4096`) {
			t.Error(out)
		}
	})
}
