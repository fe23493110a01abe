package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/daxfsd/daxfsd/test/harness"
)

// TestTruncatedRegion truncates the region file under a live mount: reads of the lost part must
// return EIO, and no process may hang or die.
func TestTruncatedRegion(t *testing.T) {
	t.Setenv(harness.OptionsEnv, "") // with a page cache, not every read reaches the daemon
	const size, files, each = 64 << 20, 24, 2 << 20
	m := harness.New(t, size, 2*time.Minute)
	name := func(i int) string { return m.Path(fmt.Sprintf("f%02d", i)) }
	content := func(i int) []byte { return bytes.Repeat([]byte{byte('a' + i)}, each) }
	for i := range files {
		if err := os.WriteFile(name(i), content(i), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Truncate(m.Region, size/2); err != nil {
		t.Fatal(err)
	}
	within := func(what string, f func() error) error {
		t.Helper()
		done := make(chan error, 1)
		go func() { done <- f() }()
		select {
		case err := <-done:
			return err
		case <-time.After(20 * time.Second):
			t.Fatalf("%s hangs", what)
			return nil
		}
	}
	lost, whole := -1, -1
	for i := range files {
		var b []byte
		err := within("reading", func() (err error) { b, err = os.ReadFile(name(i)); return err })
		switch {
		case errors.Is(err, syscall.EIO):
			lost = i
		case err != nil:
			t.Fatalf("reading %s: %v, want EIO or the content", name(i), err)
		case !bytes.Equal(b, content(i)):
			t.Fatalf("reading %s gives wrong content", name(i))
		default:
			whole = i
		}
		m.Alive()
	}
	if lost < 0 || whole < 0 {
		t.Fatalf("half of the region was cut off: last file with EIO %d, last whole file %d; want some of both", lost, whole)
	}
	// Writing to the lost part fails, too.
	err := within("writing", func() error {
		f, err := os.OpenFile(name(lost), os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = f.WriteAt(content(lost), 0)
		return err
	})
	if err != nil && !errors.Is(err, syscall.EIO) {
		t.Errorf("writing to the lost part: %v, want EIO", err)
	}
	m.Alive()
	// The rest works: files that are not lost can be written, listed and renamed.
	if err := within("overwriting", func() error {
		f, err := os.OpenFile(name(whole), os.O_RDWR, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		if _, err := f.WriteAt([]byte("new"), 0); err != nil {
			return err
		}
		b := make([]byte, 3)
		if _, err := f.ReadAt(b, 0); err != nil || string(b) != "new" {
			return fmt.Errorf("read back %q, %w", b, err)
		}
		return os.Rename(name(whole), m.Path("renamed"))
	}); err != nil {
		t.Errorf("what was not lost: %v", err)
	}
	if err := within("listing", func() error {
		l, err := os.ReadDir(m.Mountpoint)
		if err == nil && len(l) != files {
			err = fmt.Errorf("%d entries, want %d", len(l), files)
		}
		return err
	}); err != nil {
		t.Errorf("listing: %v", err)
	}
	m.Alive()
	if err := os.Truncate(m.Region, size); err != nil {
		t.Fatal(err)
	}
	m.Alive()
}
