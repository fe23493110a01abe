package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/daxfs/daxfs/fs/fusefs"
)

// helperArgs makes arguments of ours of those that mount(8) gives the program
// mount.fuse.daxfs (or mount.daxfs), which is this one by another name: so that fstab(5),
// `mount -t fuse.daxfs` and `mount -o remount` work. ok is false if it has its own name; no
// arguments are nothing to do.
//
//	mount.fuse.daxfs SOURCE DIRECTORY [-sfnv] [-N NAMESPACE] [-t TYPE] [-o OPTIONS]
func helperArgs(argv []string) (args []string, ok bool) {
	if len(argv) == 0 || !strings.HasPrefix(filepath.Base(argv[0]), "mount.") {
		return nil, false
	}
	args, fake := []string{"mount"}, false
	for i := 1; i < len(argv); i++ {
		switch a := argv[i]; {
		case a == "-o" && i+1 < len(argv):
			i++
			args = append(args, "-o", helperOptions(argv[i]))
		case a == "-t" && i+1 < len(argv), a == "-N" && i+1 < len(argv):
			i++
		case a != "" && strings.Trim(a, "sfnv") == "-": // sloppy, fake, no mtab, verbose
			fake = fake || strings.Contains(a, "f")
		default:
			args = append(args, a)
		}
	}
	if fake { // everything but the mount(2)
		return nil, true
	}
	return args, true
}

// helperExit is an exit code as mount(8) has it: 1 incorrect invocation, 32 mount failure.
func helperExit(code int) int {
	switch code {
	case 0:
		return 0
	case 2:
		return 1
	}
	return 32
}

// helperOptions leaves out what is for mount(8) and systemd, what the mount table shows
// and nobody said, and what is so anyhow (lazytime).
func helperOptions(o string) string {
	words := strings.Split(o, ",")
	return strings.Join(slices.DeleteFunc(words, func(w string) bool {
		name, _, _ := strings.Cut(w, "=")
		return strings.HasPrefix(w, "x-") || strings.HasPrefix(w, "X-") ||
			slices.Contains([]string{"auto", "noauto", "user", "nouser", "users", "owner", "group", "_netdev", "nofail", "comment",
				"silent", "loud", "iversion", "noiversion", "lazytime", "nolazytime", "mand", "nomand", "uhelper", "helper",
				"user_id", "group_id", "rootmode", "fd", "max_read", "blksize", "subtype", "fsname"}, name)
	}), ",")
}

const stNoSymFollow = 0x2000 // ST_NOSYMFOLLOW of linux/statfs.h

// remountFlags are the bits of mount(2) by those of statfs(2).
var remountFlags = []struct{ st, ms uintptr }{
	{unix.ST_RDONLY, unix.MS_RDONLY}, {unix.ST_NOSUID, unix.MS_NOSUID}, {unix.ST_NODEV, unix.MS_NODEV}, {unix.ST_NOEXEC, unix.MS_NOEXEC},
	{unix.ST_SYNCHRONOUS, unix.MS_SYNCHRONOUS}, {stNoSymFollow, unix.MS_NOSYMFOLLOW},
	{unix.ST_NOATIME, unix.MS_NOATIME}, {unix.ST_NODIRATIME, unix.MS_NODIRATIME}, {unix.ST_RELATIME, unix.MS_RELATIME},
}

// remount changes what the kernel keeps of a mount; of the rest the daemon knows nothing.
func remount(o *mountOptions, mountpoint string) error {
	mp, err := resolve(mountpoint)
	if err != nil {
		return err
	}
	m, err := mountAt(mp)
	if err != nil {
		return err
	}
	if m == nil || m.FSType != fsType {
		return fmt.Errorf("no daxfs is mounted on %s", mp)
	}
	if len(o.other) > 0 { // mount(8) repeats what fstab says
		d, err := askDaemon(mp, 5*time.Second)
		if err != nil {
			return fmt.Errorf("asking the daemon behind %s: %w", mp, err)
		}
		for _, w := range o.other {
			if !slices.Contains(d.Options, w) {
				return usagef("%s cannot be changed on a mounted filesystem: unmount it and mount it again", w)
			}
		}
	}
	var st unix.Statfs_t
	if err := unix.Statfs(mp, &st); err != nil {
		return fmt.Errorf("%s: %w", mp, err)
	}
	flags := uintptr(0)
	for _, f := range remountFlags {
		if uintptr(st.Flags)&f.st != 0 {
			flags |= f.ms
		}
	}
	if o.readOnlySaid {
		flags &^= unix.MS_RDONLY
		if o.readOnly {
			flags |= unix.MS_RDONLY
		}
	}
	for _, w := range o.kernel {
		set, clear, ok := fusefs.FlagOption(w)
		if ok {
			flags = flags&^clear | set
		}
	}
	if err := unix.Mount(m.Source, mp, fsType, unix.MS_REMOUNT|flags, ""); err != nil {
		return fmt.Errorf("remounting %s: %w", mp, os.NewSyscallError("mount", err))
	}
	return nil
}
