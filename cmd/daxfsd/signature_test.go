package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

func image(size int) ([]byte, func(off int64, b []byte) error) {
	img := make([]byte, size)
	return img, func(off int64, b []byte) error { copy(b, img[off:]); return nil }
}

// TestRecognise checks that each signature is found at its offset, and that zeros match none.
func TestRecognise(t *testing.T) {
	const size = 1 << 20
	if img, read := image(size); recognise(int64(len(img)), read) != "" {
		t.Error("something was recognised in zeros")
	}
	for _, s := range signatures {
		img, read := image(size)
		off := s.off
		if off < 0 {
			off += size
		}
		copy(img[off:], s.magic)
		switch s.name { // bytes that confirm requires
		case "an LVM physical volume":
			copy(img[off+24:], "LVM2 001")
		case "a daxfs filesystem (of the kernel module)":
			img[0] = '5'
		case "a nilfs2 filesystem":
			img[0x400] = 2
		}
		if got := recognise(size, read); got != s.name {
			t.Errorf("magic %q at %#x: recognised %q, want %q", s.magic, s.off, got, s.name)
		}
	}
	img, read := image(size)
	copy(img[size-4096:], signatures[0].magic)
	if got := recognise(size, read); got != signatures[0].name {
		t.Errorf("second superblock of a daxfsd: recognised %q", got)
	}
	// A region shorter than an offset is not read beyond its end.
	if _, read := image(100); recognise(100, read) != "" {
		t.Error("something was recognised in 100 zeros")
	}
}

// TestRecogniseRealTools checks that what real tools write is recognised, if they are installed.
func TestRecogniseRealTools(t *testing.T) {
	for _, c := range []struct {
		want string
		args []string
	}{
		{"an ext2, ext3 or ext4 filesystem", []string{"mkfs.ext4", "-q", "-F"}},
		{"an xfs filesystem", []string{"mkfs.xfs", "-q", "-f"}},
		{"a btrfs filesystem", []string{"mkfs.btrfs", "-q", "-f"}},
		{"a vfat filesystem", []string{"mkfs.vfat"}},
		{"a swap area", []string{"mkswap", "-q"}},
	} {
		bin, err := exec.LookPath(c.args[0])
		if err != nil {
			if bin, err = exec.LookPath("/sbin/" + c.args[0]); err != nil {
				t.Logf("%s is not installed", c.args[0])
				continue
			}
		}
		path := filepath.Join(t.TempDir(), "image")
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		const size = 320 << 20
		if err := os.Truncate(path, size); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command(bin, append(c.args[1:], path)...).CombinedOutput(); err != nil {
			t.Logf("%s: %v: %s", c.args[0], err, out)
			continue
		}
		file, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		got := recognise(size, func(off int64, buf []byte) error { _, err := file.ReadAt(buf, off); return err })
		file.Close()
		if got != c.want {
			t.Errorf("%s: recognised %q, want %q", c.args[0], got, c.want)
		}
	}
}
