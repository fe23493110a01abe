package pmem

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Access is the users who may write to a region, as the kernel reports for the open descriptor. (By
// now the region's name may lead to another file, but the descriptor is the mapped one.)
type Access struct {
	UID, GID uint32
	Perm     uint32 // permission bits of st_mode; with an ACL, the group bits are its mask
	// ACL says that an access control list of any kind may let others in, or that the kernel could
	// not be asked for one.
	ACL bool
	// NoSUID, NoDev, NoExec are the flags of the filesystem that a file is on. They are false for a
	// device node: /dev is nosuid on most machines, whatever the devices hold.
	NoSUID, NoDev, NoExec bool
}

// aclAttributes are the extended attributes that hold a file's access control list: of POSIX,
// NFSv4, CIFS and NTFS.
var aclAttributes = []string{"system.posix_acl_access", "system.nfs4_acl", "system.cifs_acl", "system.ntfs_acl", "system.richacl"}

// Access asks the kernel who may write to the open region. A region in memory belongs to root
// alone.
func (r *Region) Access() (Access, error) {
	if r.file == nil {
		return Access{}, nil
	}
	fd := int(r.file.Fd())
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return Access{}, fmt.Errorf("pmem: stat %s: %w", r.path, err)
	}
	a := Access{UID: st.Uid, GID: st.Gid, Perm: st.Mode & 0o7777}
	for _, name := range aclAttributes {
		switch _, err := unix.Fgetxattr(fd, name, nil); {
		case errors.Is(err, unix.ENODATA), errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOSYS):
		default: // it has this list, or the kernel cannot tell
			a.ACL = true
		}
	}
	if st.Mode&unix.S_IFMT == unix.S_IFREG {
		var fs unix.Statfs_t
		if err := unix.Fstatfs(fd, &fs); err != nil {
			return Access{}, fmt.Errorf("pmem: statfs %s: %w", r.path, err)
		}
		flags := uint64(fs.Flags)
		a.NoSUID, a.NoDev, a.NoExec = flags&unix.ST_NOSUID != 0, flags&unix.ST_NODEV != 0, flags&unix.ST_NOEXEC != 0
	}
	return a, nil
}

// OnlyRoot reports whether only root may write to the region.
func (a Access) OnlyRoot() bool {
	return a.UID == 0 && !a.ACL && a.Perm&0o002 == 0 && (a.Perm&0o020 == 0 || a.GID == 0)
}
