package pmem

import (
	"os"

	"golang.org/x/sys/unix"
)

// FileID identifies the file or the device behind a region on this host, whatever its name is.
type FileID struct {
	Dev uint64 `json:"dev"` // device number of the file's filesystem, or of the device node itself
	Ino uint64 `json:"ino"` // inode number; 0: a device
}

// FileID returns the identity of the open descriptor. It is zero for a region in memory.
func (r *Region) FileID() (FileID, error) {
	if r.file == nil {
		return FileID{}, nil
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(r.file.Fd()), &st); err != nil {
		return FileID{}, &os.PathError{Op: "stat", Path: r.path, Err: err}
	}
	if st.Mode&unix.S_IFMT == unix.S_IFCHR {
		return FileID{Dev: uint64(st.Rdev)}, nil
	}
	return FileID{Dev: uint64(st.Dev), Ino: st.Ino}, nil
}
