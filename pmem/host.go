package pmem

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// HostIdentity identifies this host and its present boot; the owner record of a region compares
// both. machineID is /etc/machine-id. Without that file it is a hash of the machine's names in the
// firmware, and of the host name if the firmware's names are not unique or may not be read. bootID
// is the kernel's boot_id, or zeros if /proc does not show it. They are read once.
func HostIdentity() (machineID, bootID [16]byte) { return thisHost() }

var thisHost = sync.OnceValues(func() (machineID, bootID [16]byte) { return hostIdentity("/") })

// SelfFacts are the facts by which other processes can recognise this one.
type SelfFacts struct {
	PID       int
	Start     uint64 // clock ticks since boot; 0 if /proc does not show it
	Namespace uint32 // inode number of the pid namespace; 0 if /proc shows another namespace, or does not show it
}

// Self returns the facts of this process. They are read once.
var Self = sync.OnceValue(func() SelfFacts {
	s := SelfFacts{PID: os.Getpid()}
	if seen, err := os.Readlink("/proc/self"); err != nil || seen != strconv.Itoa(s.PID) {
		return s // in /proc, our pid is another process
	}
	if p, err := ProcessStatus(s.PID); err == nil {
		s.Start = p.Start
	}
	var st unix.Stat_t
	if unix.Stat("/proc/self/ns/pid", &st) == nil && st.Ino <= math.MaxUint32 {
		s.Namespace = uint32(st.Ino)
	}
	return s
})

// hostIdentity is HostIdentity with another root directory.
func hostIdentity(root string) (machineID, bootID [16]byte) {
	bootID, _ = readID(filepath.Join(root, "proc/sys/kernel/random/boot_id"))
	for _, name := range []string{"etc/machine-id", "var/lib/dbus/machine-id"} {
		if id, ok := readID(filepath.Join(root, name)); ok {
			return id, bootID
		}
	}
	const uuid, serial, hostname = "sys/class/dmi/id/product_uuid", "sys/firmware/devicetree/base/serial-number", "proc/sys/kernel/hostname"
	names := []string{uuid, "sys/class/dmi/id/board_serial", "sys/class/dmi/id/product_serial", serial}
	_, unique := readID(filepath.Join(root, uuid))
	if b, err := os.ReadFile(filepath.Join(root, serial)); err == nil && len(bytes.Trim(b, "0\x00 \n")) > 0 {
		unique = true
	}
	if !unique { // the serial numbers of a PC may be "None"; a container has a host name of its own
		names = append(names, hostname)
	}
	h := sha256.New()
	for _, name := range names {
		b, _ := os.ReadFile(filepath.Join(root, name))
		fmt.Fprintf(h, "%s=%q\n", name, bytes.TrimSpace(b))
	}
	copy(machineID[:], h.Sum(nil))
	return machineID, bootID
}

// readID reads an id of 32 hexadecimal digits, with or without dashes. ok is false if it is
// malformed or zero.
func readID(path string) (id [16]byte, ok bool) {
	b, err := os.ReadFile(path)
	if err != nil {
		return id, false
	}
	b = bytes.ReplaceAll(bytes.TrimSpace(b), []byte("-"), nil)
	if len(b) != 2*len(id) {
		return id, false // systemd writes "uninitialized" into images
	}
	if _, err := hex.Decode(id[:], b); err != nil {
		return [16]byte{}, false
	}
	return id, id != [16]byte{}
}

// Process is a process that has not ended.
type Process struct {
	Start   uint64 // clock ticks since boot; with the boot id, it distinguishes processes that reuse a pid
	Stopped bool   // by a signal, or a debugger
}

// ProcessStatus returns the status of a process of our pid namespace. The error is os.ErrNotExist
// if there is no such process, or only a zombie. It is os.ErrPermission if /proc may hide the
// process from us (hidepid).
func ProcessStatus(pid int) (Process, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if errors.Is(err, unix.ESRCH) {
		err = fmt.Errorf("pmem: process %d: %w", pid, os.ErrNotExist)
	}
	if errors.Is(err, os.ErrNotExist) {
		if _, e := os.Stat("/proc/1"); e != nil {
			err = fmt.Errorf("pmem: process %d: %w: /proc does not show those of others", pid, os.ErrPermission)
		}
	}
	if err != nil {
		return Process{}, err
	}
	return parseStat(string(b))
}

// parseStat returns fields 3 and 22 of a line of /proc/PID/stat. The second field is the program's
// name in parentheses, which may contain anything.
func parseStat(stat string) (Process, error) {
	rest := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	const startTime = 22 - 3 // rest begins with field 3
	if len(rest) > 0 && (rest[0] == "Z" || rest[0] == "X") {
		return Process{}, fmt.Errorf("pmem: process has ended: %w", os.ErrNotExist)
	}
	if len(rest) <= startTime {
		return Process{}, fmt.Errorf("pmem: process status has %d fields after the name, %d were expected", len(rest), startTime+1)
	}
	start, err := strconv.ParseUint(rest[startTime], 10, 64)
	return Process{Start: start, Stopped: rest[0] == "T" || rest[0] == "t"}, err
}
