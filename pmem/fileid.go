package pmem

import (
	"os"

	"golang.org/x/sys/unix"
)

// FileID identifies the file or the device behind a region on this host, whatever its name is.
type FileID struct {
	Dev uint64 `json:"dev"` // of the filesystem that the file is on; of a device node its own number
	Ino uint64 `json:"ino"` // 0: a device
}

// FileID asks the open descriptor. A region in memory has none.
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
