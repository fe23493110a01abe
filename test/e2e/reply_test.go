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
	mount := harness.New(t, size, 2*time.Minute)
	name := func(i int) string { return mount.Path(fmt.Sprintf("f%02d", i)) }
	content := func(i int) []byte { return bytes.Repeat([]byte{byte('a' + i)}, each) }
	for i := range files {
		if err := os.WriteFile(name(i), content(i), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Truncate(mount.Region, size/2); err != nil {
		t.Fatal(err)
	}
	within := func(what string, call func() error) error {
		t.Helper()
		done := make(chan error, 1)
		go func() { done <- call() }()
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
		var got []byte
		err := within("reading", func() (err error) { got, err = os.ReadFile(name(i)); return err })
		switch {
		case errors.Is(err, syscall.EIO):
			lost = i
		case err != nil:
			t.Fatalf("reading %s: %v, want EIO or the content", name(i), err)
		case !bytes.Equal(got, content(i)):
			t.Fatalf("reading %s gives wrong content", name(i))
		default:
			whole = i
		}
		mount.Alive()
	}
	if lost < 0 || whole < 0 {
		t.Fatalf("half of the region was cut off: last file with EIO %d, last whole file %d; want some of both", lost, whole)
	}
	// Writing to the lost part fails, too.
	err := within("writing", func() error {
		file, err := os.OpenFile(name(lost), os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		defer file.Close()
		_, err = file.WriteAt(content(lost), 0)
		return err
	})
	if err != nil && !errors.Is(err, syscall.EIO) {
		t.Errorf("writing to the lost part: %v, want EIO", err)
	}
	mount.Alive()
	// The rest works: files that are not lost can be written, listed and renamed.
	if err := within("overwriting", func() error {
		file, err := os.OpenFile(name(whole), os.O_RDWR, 0)
		if err != nil {
			return err
		}
		defer file.Close()
		if _, err := file.WriteAt([]byte("new"), 0); err != nil {
			return err
		}
		buf := make([]byte, 3)
		if _, err := file.ReadAt(buf, 0); err != nil || string(buf) != "new" {
			return fmt.Errorf("read back %q, %w", buf, err)
		}
		return os.Rename(name(whole), mount.Path("renamed"))
	}); err != nil {
		t.Errorf("the rest of the region: %v", err)
	}
	if err := within("listing", func() error {
		entries, err := os.ReadDir(mount.Mountpoint)
		if err == nil && len(entries) != files {
			err = fmt.Errorf("%d entries, want %d", len(entries), files)
		}
		return err
	}); err != nil {
		t.Errorf("listing: %v", err)
	}
	mount.Alive()
	if err := os.Truncate(mount.Region, size); err != nil {
		t.Fatal(err)
	}
	mount.Alive()
}
