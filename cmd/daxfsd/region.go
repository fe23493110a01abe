package main

import (
	"bufio"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/daxfsd/daxfsd/fs"
	"github.com/daxfsd/daxfsd/fs/layout"
	"github.com/daxfsd/daxfsd/pmem"
)

// defaultSize is the size in bytes of a new region in an ordinary file.
const defaultSize = 1 << 30

// openRegion opens a region exclusively; its error explains in one sentence why the region cannot
// be opened.
func openRegion(path string, o pmem.Options) (*pmem.Region, error) {
	r, err := retryBusy(path, func() (*pmem.Region, error) { return pmem.Open(path, o) })
	if err != nil {
		return nil, regionError(path, err)
	}
	return r, nil
}

// daxMode explains why a /dev/daxX.Y that the kernel knows has no memory behind it. It returns ""
// if the kernel does not know the device, or has it as device-dax.
func daxMode(sysfs, path string) string {
	name := filepath.Base(path)
	dir := filepath.Join(sysfs, "bus/dax/devices", name)
	if _, err := os.Stat(dir); err != nil || filepath.Dir(path) != "/dev" {
		return ""
	}
	driver, err := os.Readlink(filepath.Join(dir, "driver"))
	switch driver = filepath.Base(driver); {
	case err != nil:
		return fmt.Sprintf("is disabled; enable it with `daxctl enable-device %s`", name)
	case driver == "kmem":
		return fmt.Sprintf("is in system-ram mode: the kernel uses it as ordinary memory; make it a device again with `daxctl reconfigure-device --mode=devdax %s`", name)
	case driver != "device_dax":
		return fmt.Sprintf("belongs to the kernel's driver %s; make it a device again with `daxctl reconfigure-device --mode=devdax %s`", driver, name)
	}
	return ""
}

// usedBy describes the user of a region as the end of a sentence, such as " by process 7"; "" if
// unknown.
func usedBy(path string) string {
	if m := serving(path); m != nil {
		if i, err := askDaemon(m.Mountpoint, probeLimit); err == nil {
			return fmt.Sprintf(": mounted on %s by process %d", m.Mountpoint, i.PID)
		} else if errors.Is(err, errSilent) {
			return fmt.Sprintf(": mounted on %s; %v", m.Mountpoint, err)
		}
		return ": mounted on " + m.Mountpoint
	}
	if pid := lockHolder(path); pid > 0 {
		return fmt.Sprintf(" by process %d", pid)
	}
	return ""
}

// lockHolder returns the process that holds a lock on a file, from /proc/locks; 0 if unknown.
func lockHolder(path string) int {
	r, err := find(path)
	if err != nil || !r.region() {
		return 0
	}
	major, minor := int(unix.Major(r.dev)), int(unix.Minor(r.dev))
	if r.mount != nil { // /proc/locks has the superblock's device; on btrfs stat(2) returns another one
		major, minor = r.mount.Major, r.mount.Minor
	}
	want := fmt.Sprintf("%02x:%02x:%d", major, minor, r.ino)
	f, err := os.Open("/proc/locks")
	if err != nil {
		return 0
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if w := strings.Fields(s.Text()); len(w) >= 6 && w[len(w)-3] == want {
			if pid, err := strconv.Atoi(w[len(w)-4]); err == nil && pid > 0 {
				return pid
			}
		}
	}
	return 0
}

// regionPath makes a region's path absolute and resolves symbolic links: under that name the mount
// table knows the region. It fails if the filesystem that the region is on does not answer.
func regionPath(path string) (string, error) {
	if err := answering(path); errors.Is(err, errSilent) {
		return "", err
	}
	return resolve(path)
}

// superError turns an error of fs.ReadSuper into one sentence.
func superError(path string, r *pmem.Region, err error) error {
	switch {
	case errors.Is(err, layout.ErrMagic):
		what := recognise(r.Size(), r.Load)
		if what == signatures[0].name { // only the superblock is left
			return &reworded{fmt.Sprintf("region %s is truncated: it has %s, less than any daxfsd; restore its size and try again", path, formatSize(r.Size())), err}
		}
		if what == "" {
			what = "no daxfsd filesystem"
		}
		if _, found, ok := strings.Cut(err.Error(), layout.ErrMagic.Error()+": "); ok {
			what += " (" + found + ")"
		}
		return &reworded{fmt.Sprintf("region %s holds %s; format it with `daxfsd mkfs %s`, or name another one", path, what, path), err}
	case errors.Is(err, layout.ErrChecksum):
		_, found, _ := strings.Cut(err.Error(), layout.ErrChecksum.Error()+": ")
		return &reworded{fmt.Sprintf("region %s holds a daxfsd whose superblocks are both damaged (the first: %s); restore the region from a backup", path, found), err}
	}
	var align *fs.AlignError
	if errors.As(err, &align) {
		return &reworded{fmt.Sprintf("region %s has an alignment of %s, and the filesystem on it was made for %s; make the namespace again with `--align %d`, or another filesystem with `daxfsd mkfs %s`",
			path, formatSize(align.Found), formatSize(align.Want), align.Want, path), err}
	}
	if text, ok := strings.CutPrefix(err.Error(), "region "); ok {
		return &reworded{fmt.Sprintf("region %s %s", path, text), err}
	}
	return fmt.Errorf("region %s: %w", path, err)
}

// durabilityText describes what survives a power failure.
func durabilityText(d pmem.Durability) string {
	switch d {
	case pmem.DurableFlush:
		return "persistent memory: what has returned survives the daemon's death and a power failure"
	case pmem.DurableDaemon:
		return "emulated in an ordinary file: what has returned survives the daemon's death; after a crash of the host nothing is promised since the last clean unmount"
	}
	return "volatile memory: what has returned survives the daemon's death, but not a reboot"
}

// uncleanHostStop reports whether the host went down while an emulated region was in use. Nothing
// is promised then, because the kernel writes back the file's pages in any order.
func uncleanHostStop(r *pmem.Region, sb *layout.Superblock) bool {
	if r.Durability() != pmem.DurableDaemon {
		return false
	}
	o, ok, err := fs.ReadOwner(r, sb)
	if err != nil || !ok {
		return err == nil
	}
	_, boot := pmem.HostIdentity()
	return o.State == layout.OwnerMounted && o.Boot != boot
}

// uuidString formats a UUID with hyphens.
func uuidString(u [16]byte) string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", u[:4], u[4:6], u[6:8], u[8:10], u[10:])
}

func parseUUID(s string) (u [16]byte, err error) {
	b, err := hex.DecodeString(strings.ReplaceAll(s, "-", ""))
	if err != nil || len(b) != len(u) {
		return u, usagef("--uuid %q: expected 32 hexadecimal digits such as 6a1f4c3e-9b1d-4c8e-8f62-0d9be2c5a713", s)
	}
	copy(u[:], b)
	if u == ([16]byte{}) {
		return u, usagef("--uuid %q: the zero UUID is not allowed", s)
	}
	return u, nil
}

// table prints names and values in two columns, without rows whose value is empty.
func table(w io.Writer, rows [][2]string) {
	width := 0
	for _, r := range rows {
		width = max(width, len(r[0]))
	}
	for _, r := range rows {
		if r[1] != "" {
			fmt.Fprintf(w, "%-*s  %s\n", width, r[0], quoted(r[1]))
		}
	}
}
