package harness

import (
	"errors"
	"io/fs"
	"os"
	"testing"

	"github.com/daxfsd/daxfsd/fs/transport"
)

// Uring turns FUSE over io_uring on until the end of the test, for mounts with -o transport=uring.
// It skips the test on a kernel without it (before Linux 6.14).
func Uring(t *testing.T) {
	t.Helper()
	was, err := os.ReadFile(transport.UringParameter)
	if errors.Is(err, fs.ErrNotExist) {
		t.Skip("this kernel has no FUSE over io_uring, which came with Linux 6.14")
	}
	if err == nil {
		err = os.WriteFile(transport.UringParameter, []byte("Y"), 0)
	}
	if err != nil {
		t.Fatalf("turning FUSE over io_uring on: %v", err)
	}
	t.Cleanup(func() {
		if err := os.WriteFile(transport.UringParameter, was, 0); err != nil {
			t.Errorf("putting %s back: %v", transport.UringParameter, err)
		}
	})
}
