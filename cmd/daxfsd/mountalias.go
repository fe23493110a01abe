package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/daxfsd/daxfsd/fs/fusefs"
)

// helperArgs translates the arguments that mount(8) and umount(8) give to the programs
// mount.fuse.daxfsd and umount.fuse.daxfsd (or mount.daxfsd, umount.daxfsd) into those of daxfsd.
// These programs are this one under other names. They make fstab(5), `mount -t fuse.daxfsd` and
// `mount -o remount` work, and let umount(8) return only when the region is free. ok is false if
// the program was called by its own name. If ok is true and args is nil, there is nothing to do.
//
//	mount.fuse.daxfsd SOURCE DIRECTORY [-sfnv] [-N NAMESPACE] [-t TYPE] [-o OPTIONS]
//	umount.fuse.daxfsd DIRECTORY [-flnrv] [-N NAMESPACE] [-t TYPE]
func helperArgs(argv []string) (args []string, ok bool) {
	if len(argv) == 0 {
		return nil, false
	}
	name, _, ok := strings.Cut(filepath.Base(argv[0]), ".")
	if !ok || name != "mount" && name != "umount" {
		return nil, false
	}
	args, fake := []string{name}, false
	for i := 1; i < len(argv); i++ {
		switch a := argv[i]; {
		case name == "mount" && a == "-o" && i+1 < len(argv):
			i++
			args = append(args, "-o", helperOptions(argv[i]))
		case a == "-t" && i+1 < len(argv), a == "-N" && i+1 < len(argv):
			i++
		case name == "mount" && a != "" && strings.Trim(a, "sfnv") == "-": // sloppy, fake, no mtab, verbose
			fake = fake || strings.Contains(a, "f")
		case name == "umount" && a != "" && strings.Trim(a, "flnrv") == "-": // force, lazy, no mtab, read-only, verbose
			if strings.Contains(a, "f") {
				args = append(args, "--force")
			}
			if strings.Contains(a, "l") {
				args = append(args, "--lazy")
			}
		default:
			args = append(args, a)
		}
	}
	if fake { // -f skips mount(2), and there is nothing else to do
		return nil, true
	}
	return args, true
}

// helperExit converts an exit code to that of mount(8) and umount(8): 1 incorrect invocation, 32
// failure.
func helperExit(code int) int {
	switch code {
	case 0:
		return 0
	case 2:
		return 1
	}
	return 32
}

// helperOptions removes the options that are for mount(8) and systemd, those that the mount table
// shows without having been given, and those that are always in force (lazytime).
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

// remountFlags maps the words of the mount table to flags of mount(2).
var remountFlags = map[string]uintptr{
	"ro": unix.MS_RDONLY, "nosuid": unix.MS_NOSUID, "nodev": unix.MS_NODEV, "noexec": unix.MS_NOEXEC,
	"sync": unix.MS_SYNCHRONOUS, "dirsync": unix.MS_DIRSYNC, "nosymfollow": unix.MS_NOSYMFOLLOW,
	"noatime": unix.MS_NOATIME, "nodiratime": unix.MS_NODIRATIME, "relatime": unix.MS_RELATIME,
}

// remount changes the flags that the kernel keeps for a mount, and nothing that the daemon knows.
func remount(opts *mountOptions, mountpoint string) error {
	point, fd, err := findOpen(mountpoint)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	mount := point.daxfsd()
	if mount == nil {
		return fmt.Errorf("no daxfsd is mounted on %s", point.path)
	}
	daemon, err := askDaemon(mount.Mountpoint, 5*time.Second)
	switch {
	case errors.Is(err, errSilent):
		return err
	case err != nil:
		return fmt.Errorf("asking the daemon behind %s: %w", mount.Mountpoint, err)
	}
	if err := opts.remountable(daemon.Options); err != nil {
		return err
	}
	flags := uintptr(0)
	for _, word := range strings.Split(mount.Options+","+mount.VFSOptions, ",") {
		flags |= remountFlags[word]
	}
	if opts.readOnlyGiven {
		flags &^= unix.MS_RDONLY
		if opts.readOnly {
			flags |= unix.MS_RDONLY
		}
	}
	for _, word := range opts.kernel {
		set, clear, ok := fusefs.FlagOption(word)
		if ok {
			flags = flags&^clear | set
		}
	}
	if err := unix.Mount(mount.Source, fmt.Sprintf("/proc/self/fd/%d", fd), fsType, unix.MS_REMOUNT|flags, ""); err != nil {
		return fmt.Errorf("remounting %s: %w", mount.Mountpoint, os.NewSyscallError("mount", err))
	}
	if flags&unix.MS_RDONLY != 0 {
		tellWriters(mount.Mountpoint, daemon.Region)
	}
	return nil
}

// tellWriters says which programs may go on storing to files of a mount that is read-only now. The
// kernel refuses such a remount while files are open for writing, but it does not know of mappings
// that a former mount has granted.
func tellWriters(mountpoint, region string) {
	all, err := askGrants(mountpoint)
	if err != nil {
		return
	}
	n := int64(0)
	for _, g := range all {
		if g.Mode == "rw" {
			n += g.Bytes
		}
	}
	if n > 0 {
		fmt.Fprintf(os.Stderr, "daxfsd: mount: %s\n", visible(fmt.Sprintf("%s is read-only now, but programs map %s to write and go on (%s): end them", mountpoint, formatSize(n), usersText(regionUsers(region, lockHolder(region))))))
	}
}

// remountable refuses options that a remount cannot change: those that the daemon used when it
// mounted (has lists them). It accepts an option that was given already, because mount(8) repeats
// what fstab says.
func (o *mountOptions) remountable(has []string) error {
	if o.readOnlyGiven && !o.readOnly && slices.Contains(has, "ro") {
		return usagef("rw: the daemon has opened the region read-only (-o ro): unmount it and mount it again")
	}
	for _, w := range append(slices.Clone(o.other), o.kernel...) {
		_, _, flag := fusefs.FlagOption(w)
		switch {
		case flag && !slices.Contains(o.other, w): // the kernel changes it
		case w == "transport=auto": // auto accepts whichever was chosen
		case w == "diratime" && !slices.Contains(has, "nodiratime"):
		case !slices.Contains(has, w):
			return usagef("%s cannot be changed on a mounted filesystem: unmount it and mount it again", w)
		}
	}
	return nil
}
