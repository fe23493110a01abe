package e2e

import (
	"compress/gzip"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/daxfsd/daxfsd/test/harness"
)

// TestGolden checks and mounts regions that earlier versions wrote (test/golden), and compares the
// attributes and content of every name with the manifest. The owner of the crashed regions is a
// machine that does not exist, so they need a takeover.
func TestGolden(t *testing.T) {
	images, err := filepath.Glob("../golden/testdata/*.img.gz")
	if err != nil || len(images) < 4 {
		t.Fatalf("%d images, %v; want 4 at least", len(images), err)
	}
	for _, image := range images {
		t.Run(strings.TrimSuffix(filepath.Base(image), ".img.gz"), func(t *testing.T) {
			region := filepath.Join(t.TempDir(), "region")
			unpack(t, image, region)
			m := harness.Existing(t, region, "takeover", time.Minute)
			m.Fsck()
			m.Up()
			manifest, err := os.ReadFile(strings.TrimSuffix(image, ".img.gz") + ".txt")
			if err != nil {
				t.Fatal(err)
			}
			names, files := compareTree(t, m.Mountpoint, string(manifest))
			if names < 3 || files < 2 {
				t.Errorf("the manifest has %d names and %d files with content", names, files)
			}
			m.Down()
		})
	}
}

// unpack decompresses an image into a new file.
func unpack(t *testing.T, image, region string) {
	t.Helper()
	in, err := os.Open(image)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	z, err := gzip.NewReader(in)
	if err != nil {
		t.Fatal(err)
	}
	out, err := os.OpenFile(region, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	if _, err := io.Copy(out, z); err != nil {
		t.Fatal(err)
	}
}

// compareTree compares each name of a manifest with the mount. It returns the number of names and
// of checksums.
func compareTree(t *testing.T, mountpoint, manifest string) (names, files int) {
	t.Helper()
	name := ""
	for line := range strings.Lines(manifest) {
		var want struct {
			mode, uid, gid, links uint32
			size, ino             int64
			gen                   uint32
		}
		var sum string
		switch {
		case line[0] == '"':
			if _, err := fmt.Sscanf(line, "%q mode %o owner %d:%d links %d size %d inode %d.%d", &name,
				&want.mode, &want.uid, &want.gid, &want.links, &want.size, &want.ino, &want.gen); err != nil {
				t.Fatalf("%v: %s", err, line)
			}
			names++
			var st syscall.Stat_t
			if err := syscall.Lstat(mountpoint+name, &st); err != nil {
				t.Errorf("%s: %v", name, err)
			} else if st.Mode != want.mode || st.Uid != want.uid || st.Gid != want.gid || uint32(st.Nlink) != want.links ||
				st.Size != want.size || st.Ino != uint64(want.ino) {
				t.Errorf("%s: found %o %d:%d %d %d inode %d, expected %s", name, st.Mode, st.Uid, st.Gid, st.Nlink, st.Size, st.Ino, line)
			}
		case strings.HasPrefix(line, "  sha256 "):
			fmt.Sscanf(line, "  sha256 %s", &sum)
			files++
			b, err := os.ReadFile(mountpoint + name)
			if err != nil {
				t.Errorf("%s: %v", name, err)
			} else if got := fmt.Sprintf("%x", sha256.Sum256(b)); got != sum {
				t.Errorf("%s: the content's checksum is %s, expected %s", name, got, sum)
			}
		}
	}
	return names, files
}
