package random

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/daxfsd/daxfsd/test/harness"
)

// TestSeekMapped checks that SEEK_DATA shows bytes that were stored into a hole through a mapping,
// whether or not they are written back or still mapped. cp(1) copies only what SEEK_DATA shows, so
// it would lose them.
func TestSeekMapped(t *testing.T) {
	for _, mode := range modes(t) {
		for _, how := range []string{"mapped", "unmapped", "closed"} {
			t.Run(mode+"/"+how, func(t *testing.T) {
				where := newPlace(t, mode, 64<<20, time.Minute)
				name := filepath.Join(where.dir, "f")
				file, err := os.Create(name)
				if err != nil {
					t.Fatal(err)
				}
				defer func() { file.Close() }()
				if err := file.Truncate(1 << 20); err != nil {
					t.Fatal(err)
				}
				mem, err := unix.Mmap(int(file.Fd()), 0, 1<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
				if err != nil {
					t.Fatal(err)
				}
				copy(mem[500_000:], "stored")
				if how == "mapped" {
					defer func() { _ = unix.Munmap(mem) }()
				} else if err := unix.Munmap(mem); err != nil {
					t.Fatal(err)
				}
				if how == "closed" {
					file.Close()
					if file, err = os.Open(name); err != nil {
						t.Fatal(err)
					}
				}
				if off, err := unix.Seek(int(file.Fd()), 0, unix.SEEK_DATA); err != nil || off > 500_000 {
					t.Errorf("SEEK_DATA from 0: %d, %v, and 500000 has data", off, err)
				}
				harness.Run(t, time.Minute, where.dir, nil, "cp", "f", "copy")
				content, err := os.ReadFile(filepath.Join(where.dir, "copy"))
				if err != nil || len(content) != 1<<20 || !bytes.HasPrefix(content[500_000:], []byte("stored")) {
					t.Errorf("cp lost what was stored (%d bytes, %v)", len(content), err)
				}
			})
		}
	}
}
