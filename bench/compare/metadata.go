package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// metadataContenders are the contenders of the rows on names and attributes.
var metadataContenders = []string{"daxfsd-uring", "daxfsd-dev", "loopback", "loopback-cached", "null-uring", "null-dev", "tmpfs", "ext4"}

// keepsNothing is why some rows are not measured on the null bound.
const keepsNothing = "it keeps no files"

// metaRows lists the rows in the order in which they are measured.
var metaRows = []string{"create", "stat-created", "readdir", "stat-listed", "stat-cold", "rename", "unlink"}

// metadata measures operations on names: metaRows, source trees, and many clients.
func (m *measurement) metadata() error {
	var names []string
	for _, n := range metaRows {
		names = append(names, "meta/"+n)
	}
	meta, tree, load := m.rowsOf("ops/s", false, names...), m.rowsOf("s", true, treeRows...), m.rowsOf("ratio", false, "load/fairness")
	if len(meta)+len(tree)+len(load) == 0 {
		return nil
	}
	var archive string
	if len(tree) > 0 {
		var err error
		if archive, err = m.pack(m.ctx); err != nil {
			return err
		}
	}
	for round := range m.conf.Rounds {
		for _, part := range []struct {
			what string
			rows []*row
			f    func(*contender) error
		}{
			{"meta", meta, func(t *contender) error { return m.names(t, meta) }},
			{"tree", tree, func(t *contender) error { return m.tree(t, archive, tree) }},
			{"load/fairness", load, func(t *contender) error { return m.fairness(t, load[0].cell(t.name)) }},
		} {
			if len(part.rows) == 0 {
				continue
			}
			for _, name := range m.wanted(metadataContenders...) {
				if strings.HasPrefix(name, "null-") && part.what != "meta" {
					unmeasured(part.rows, name, keepsNothing)
					continue
				}
				err := m.try(round, part.what, name, part.rows, func() error {
					return m.fresh(name, "meta", 2<<30, part.f)
				})
				if err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// rowsOf adds to the report the named rows that were selected, and returns them.
func (m *measurement) rowsOf(metric string, lower bool, names ...string) (l []*row) {
	for _, n := range names {
		if m.wants(n) {
			l = append(l, m.report.row(n, metric, lower))
		}
	}
	return l
}

// record adds a sample to a row, if the row was selected.
func record(rows []*row, name, contender string, v float64) {
	for _, x := range rows {
		if x.Name == name {
			x.cell(contender).add(x.Metric, v)
		}
	}
}

// names measures metaRows: one client makes plain system calls on names in one directory.
func (m *measurement) names(t *contender, rows []*row) error {
	n := m.conf.Files
	old, renamed := numbered("file", n), numbered("renamed", n)
	path := filepath.Join(t.dir, "names")
	if err := again(func() error { return unix.Mkdir(path, 0o755) }); err != nil {
		return err
	}
	dir, err := openDir(path)
	if err != nil {
		return err
	}
	defer func() { unix.Close(dir) }()
	step := func(name string, op func() error) error {
		start := time.Now()
		if err := op(); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		record(rows, "meta/"+name, t.name, float64(n)/time.Since(start).Seconds())
		return m.ctx.Err()
	}
	stat := func() error { return statAll(dir, old) }
	list := func() error {
		got, err := listed(path)
		if err == nil && got != n {
			err = fmt.Errorf("%d of %d names are listed", got, n)
		}
		return err
	}
	if err := errors.Join(step("create", func() error { return createAll(dir, old) }), step("stat-created", stat)); err != nil {
		return err
	}
	if !t.null() {
		if err := errors.Join(step("readdir", list), step("stat-listed", stat)); err != nil {
			return err
		}
	}
	switch {
	case t.null():
		unmeasured(rows, t.name, keepsNothing, "meta/readdir", "meta/stat-listed", "meta/stat-cold")
	case !t.served():
		unmeasured(rows, t.name, "its caches cannot be dropped without those of the whole machine", "meta/stat-cold")
	default:
		unix.Close(dir)
		if err := t.restart(m.ctx); err != nil {
			return err
		}
		if dir, err = openDir(path); err != nil {
			return err
		}
		if err := step("stat-cold", stat); err != nil {
			return err
		}
	}
	if err := step("rename", func() error {
		for i := range old {
			if err := again(func() error { return unix.Renameat(dir, old[i], dir, renamed[i]) }); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		return err
	}
	return step("unlink", func() error { return unlinkAll(dir, renamed) })
}

// again repeats a call that a signal interrupted. The Go runtime sends itself many signals, and a
// signal withdraws a FUSE request that the server has not read yet.
func again(f func() error) error {
	for {
		if err := f(); err != unix.EINTR {
			return err
		}
	}
}

// openDir opens a directory.
func openDir(path string) (d int, err error) {
	err = again(func() error { d, err = unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY, 0); return err })
	return d, err
}

func numbered(prefix string, n int) []string {
	l := make([]string, n)
	for i := range l {
		l[i] = fmt.Sprintf("%s%07d", prefix, i)
	}
	return l
}

func createAll(d int, names []string) error {
	for _, n := range names {
		var fd int
		if err := again(func() (err error) {
			fd, err = unix.Openat(d, n, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY, 0o644)
			return err
		}); err != nil {
			return err
		}
		if err := unix.Close(fd); err != nil && err != unix.EINTR { // on EINTR it is closed nevertheless
			return err
		}
	}
	return nil
}

func statAll(d int, names []string) error {
	var st unix.Stat_t
	for _, n := range names {
		if err := again(func() error { return unix.Fstatat(d, n, &st, unix.AT_SYMLINK_NOFOLLOW) }); err != nil {
			return err
		}
	}
	return nil
}

func unlinkAll(d int, names []string) error {
	for _, n := range names {
		if err := again(func() error { return unix.Unlinkat(d, n, 0) }); err != nil {
			return err
		}
	}
	return nil
}

// listed lists a directory as ls does, and counts the names except . and ..
func listed(path string) (n int, err error) {
	d, err := openDir(path)
	if err != nil {
		return 0, err
	}
	defer unix.Close(d)
	buf := make([]byte, 32<<10) // the size that glibc uses
	for {
		var l int
		err := again(func() (err error) { l, err = unix.Getdents(d, buf); return err })
		if err != nil || l == 0 {
			return n, err
		}
		for b := buf[:l]; len(b) > 0; {
			size := binary.NativeEndian.Uint16(b[16:]) // d_reclen
			name, _, _ := strings.Cut(string(b[19:min(22, len(b))]), "\x00")
			if name != "." && name != ".." {
				n++
			}
			b = b[size:]
		}
	}
}
