package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/daxfsd/daxfsd/pmem"
)

// reworded replaces the text of the error that it wraps.
type reworded struct {
	text string
	err  error
}

func (e *reworded) Error() string { return e.text }
func (e *reworded) Unwrap() error { return e.err }

// regionError turns an error of pmem.Open or pmem.Acquire into one sentence.
func regionError(path string, err error) error {
	if text := describeRegionError(path, err); text != "" {
		return &reworded{text, err}
	}
	text := strings.TrimPrefix(err.Error(), "pmem: ")
	if !strings.Contains(text, path) {
		text = path + ": " + text
	}
	return &reworded{"region " + text, err}
}

// describeRegionError returns the sentence for an error that users can do something about; "" for
// others.
func describeRegionError(path string, err error) string {
	missing := errors.Is(err, os.ErrNotExist)
	var room *pmem.RoomError
	var media pmem.MediaError
	switch {
	case errors.Is(err, pmem.ErrBusy):
		return fmt.Sprintf("region %s is in use%s; unmount it first", path, usedBy(path))
	case (missing || errors.Is(err, unix.ENXIO)) && daxMode("/sys", path) != "":
		return "region " + path + " " + daxMode("/sys", path)
	case missing && linkTarget(path) != "":
		return fmt.Sprintf("region %s is a symbolic link to %s, which does not exist; name a file, or remove the link", path, linkTarget(path))
	case missing && onDevFilesystem(path):
		return fmt.Sprintf("there is no device %s; see `ls /dev/dax*` and `daxctl list`", path)
	case missing:
		return fmt.Sprintf("region %s does not exist; make it with `daxfsd mkfs %s`", path, path)
	case errors.Is(err, pmem.ErrEmpty):
		return fmt.Sprintf("region %s has length zero; format it with `daxfsd mkfs %s`", path, path)
	case errors.As(err, &room):
		return fmt.Sprintf("region %s needs %s, and %s has %s free; choose a smaller --size, or --sparse",
			path, formatSize(room.Need), room.Where, formatSize(room.Free))
	case errors.As(err, &media) && media.Cause == pmem.CauseNoStorage:
		return fmt.Sprintf("region %s is sparse, and has no storage at offset %d: the filesystem that it is on is full, or a quota is used up; make room there", path, media.Off)
	case errors.Is(err, pmem.ErrCancelled):
		return fmt.Sprintf("cancelled by a signal; region %s is as it was", path)
	case errors.Is(err, unix.EROFS):
		return fmt.Sprintf("region %s is on a filesystem that is mounted read-only; mount it with `daxfsd mount -o ro`", path)
	case errors.Is(err, unix.ETXTBSY):
		return fmt.Sprintf("region %s is a program that is running, or a swap file", path)
	case errors.Is(err, os.ErrPermission):
		return describePermission(path, err)
	}
	return ""
}

// describePermission explains why a region may not be opened.
func describePermission(path string, err error) string {
	var op *os.PathError
	flags := inodeFlags(path)
	switch {
	case errors.As(err, &op) && op.Op == "create":
		return fmt.Sprintf("no permission to create region %s in %s; run as a user who may write there, or as root", path, filepath.Dir(path))
	case flags&unix.STATX_ATTR_IMMUTABLE != 0:
		return fmt.Sprintf("region %s is immutable; `chattr -i %s` makes it writable, and `daxfsd mount -o ro` is possible as it is", path, path)
	case flags&unix.STATX_ATTR_APPEND != 0:
		return fmt.Sprintf("region %s can only be appended to; `chattr -a %s` makes it writable, and `daxfsd mount -o ro` is possible as it is", path, path)
	case unix.Access(path, unix.R_OK) == nil:
		return fmt.Sprintf("region %s can be read, but you have no permission to write to it; run as its owner or as root, or mount it with -o ro", path)
	}
	return fmt.Sprintf("no permission to open region %s; run as its owner or as root", path)
}

// linkTarget returns the target of a symbolic link; "" if path is not one.
func linkTarget(path string) string {
	target, _ := os.Readlink(path)
	return target
}

// inodeFlags returns the STATX_ATTR_* flags of a file; 0 if unknown.
func inodeFlags(path string) uint64 {
	var st unix.Statx_t
	if unix.Statx(unix.AT_FDCWD, path, 0, 0, &st) != nil {
		return 0
	}
	return st.Attributes
}
