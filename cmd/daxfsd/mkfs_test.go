package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestMkfs(t *testing.T) {
	p := filepath.Join(t.TempDir(), "r")
	const uuid = "6a1f4c3e-9b1d-4c8e-8f62-0d9be2c5a713"
	m := decode(t, must(t, "mkfs", "--size", "32MiB", "--label", "läbel", "--uuid", uuid, "--json", p))
	has(t, m, map[string]any{"region": p, "size": float64(32 << 20), "label": "läbel", "uuid": uuid})
	st, err := os.Stat(p)
	if err != nil || st.Size() != 32<<20 {
		t.Fatalf("%v, %v", st, err)
	}
	has(t, decode(t, must(t, "info", "--json", p)), map[string]any{
		"region": p, "size": float64(32 << 20), "label": "läbel", "uuid": uuid, "state": "clean", "region_size": float64(32 << 20),
	})
	if out := must(t, "fsck", "-n", p); !strings.Contains(out, "clean") {
		t.Errorf("fsck: %s", out)
	}
	out := must(t, "mkfs", "--force", p)
	for _, w := range []string{"region", "32 MiB", "uuid", "durability"} {
		if !strings.Contains(out, w) {
			t.Errorf("%q is not in %q", w, out)
		}
	}
	if strings.Contains(out, uuid) {
		t.Error("the old UUID came back")
	}
}

func TestMkfsSizes(t *testing.T) {
	dir := t.TempDir()
	size := func(path string) int64 {
		st, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		return st.Size()
	}
	path := filepath.Join(dir, "default")
	must(t, "mkfs", "--sparse", path)
	if size(path) != defaultSize {
		t.Errorf("a new region has %d bytes, want 1 GiB", size(path))
	}
	path = filepath.Join(dir, "zero")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	must(t, "mkfs", "--sparse", "--size", "20MiB", path)
	if size(path) != 20<<20 {
		t.Errorf("a region of length zero became %d bytes, want 20 MiB", size(path))
	}
	path = filepath.Join(dir, "kept")
	if err := os.WriteFile(path, bytes.Repeat([]byte("junk"), 5<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	must(t, "mkfs", "--force", path)
	if size(path) != 20<<20 {
		t.Errorf("a file of 20 MiB became %d bytes", size(path))
	}
	must(t, "mkfs", "--force", "--size", "24MiB", path)
	if size(path) != 24<<20 {
		t.Errorf("asked for 24 MiB, got %d bytes", size(path))
	}
	must(t, "mkfs", "--force", "--size", "16MiB", path)
	if size(path) != 16<<20 {
		t.Errorf("asked for 16 MiB, got %d bytes", size(path))
	}
	must(t, "fsck", "-n", path)
	if st, err := os.Stat(filepath.Join(dir, "kept")); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
}

// TestMkfsRefuses checks that what mkfs refuses stays as it was.
func TestMkfsRefuses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := func(name string, size int, off int, magic string) string {
		path := filepath.Join(dir, name)
		data := make([]byte, size)
		copy(data[off:], magic)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	// last is a file of zeros that ends with one other byte.
	last := func(name string, size int64) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		file, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err == nil {
			_, err = file.WriteAt([]byte{1}, size-1)
			file.Close()
		}
		if err != nil {
			t.Fatal(err)
		}
		return path
	}
	formatted := newRegion(t)
	junk := file("junk", 20<<20, 12345, "important")
	for _, c := range []struct {
		name  string
		args  []string
		path  string
		code  int
		words []string
	}{
		{"daxfsd", nil, formatted, 1, []string{"daxfsd", "--force"}},
		{"ext4", nil, file("ext4", 20<<20, 0x438, "\x53\xef"), 1, []string{"ext4", "--force"}},
		{"gpt", nil, file("gpt", 20<<20, 512, "EFI PART"), 1, []string{"GPT", "--force"}},
		{"mbr in a small file", nil, file("mbr", 4096, 510, "\x55\xaa"), 1, []string{""}},
		{"too small", []string{"--size", "1MiB"}, filepath.Join(dir, "new"), 1, []string{"too small", "16 MiB"}},
		{"small file", nil, file("small", 1<<20, 0, ""), 1, []string{"too small", "16 MiB"}},
		{"famfs", nil, file("famfs", 20<<20, 0, "\xff\x82\xb2\x87\x00\x00\x00\x00"), 1, []string{"famfs", "--force"}},
		{"pmdk", nil, file("pmdk", 20<<20, 0, "PMEMOBJ\x00"), 1, []string{"PMDK", "--force"}},
		{"any byte", nil, junk, 1, []string{"data", "offset 12345", "--force"}},
		{"its last byte", nil, last("last", 200<<20), 1, []string{"data", fmt.Sprint("offset ", 200<<20-1), "--force"}},
		{"a byte of a file that is to grow", []string{"--size", "32MiB"}, junk, 1, []string{"data", "offset 12345", "--force"}},
		{"a byte of a small file", []string{"--size", "32MiB"}, file("text", 100, 99, "x"), 1, []string{"data", "offset 99", "--force"}},
		{"cut and then refused: reserve", []string{"--force", "--size", "16MiB", "--reserve", "99"}, formatted, 2, []string{"--reserve"}},
		{"cut and then refused: label", []string{"--force", "--size", "16MiB", "--label", strings.Repeat("x", 65)}, formatted, 2, []string{"--label"}},
		{"smaller than the file", []string{"--size", "16MiB"}, junk, 1, []string{"--force"}},
		{"directory", nil, dir, 1, []string{"directory"}},
		{"missing directory", nil, filepath.Join(dir, "no", "such"), 1, []string{filepath.Join(dir, "no")}},
		{"missing device", nil, "/dev/dax99.9", 1, []string{"/dev/dax99.9", "device"}},
		{"not a region", nil, "/dev/null", 1, []string{"/dev/null"}},
		{"label", []string{"--label", strings.Repeat("x", 65)}, junk, 2, []string{"64"}},
		{"uuid", []string{"--uuid", "not-one"}, junk, 2, []string{"not-one"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var before [32]byte
			st, err := os.Stat(c.path)
			regular := err == nil && st.Mode().IsRegular()
			if regular {
				before = digest(t, c.path)
			}
			refused(t, daxfsd(t, append(append([]string{"mkfs"}, c.args...), c.path)...), c.code, c.words...)
			if regular && digest(t, c.path) != before {
				t.Error("the region was touched")
			}
			if err != nil {
				if _, err := os.Stat(c.path); err == nil {
					t.Error("a file was left behind")
				}
			}
		})
	}
}
