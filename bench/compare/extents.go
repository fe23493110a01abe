package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/daxfsd/daxfsd/fs/fusefs"
)

// manyExtents is the approximate number of pieces of the fragmented file.
const manyExtents = 100_000

// extents measures random reads of a file of one extent, and of a file of the same size in many
// extents.
func (m *measurement) extents() error {
	rows := m.rowsOf("ops/s", false, "extents/one", "extents/many")
	if len(rows) == 0 {
		return nil
	}
	region := 2*m.conf.Extents*33/32 + 256<<20
	for _, name := range m.wanted("daxfsd-uring", "daxfsd-dev") {
		err := m.try(0, "extents", name, rows, func() error {
			if need := region + 1<<30; available() < need {
				return fmt.Errorf("%w: it takes %d MiB of memory, and only %d MiB are free", errUnavailable, need>>20, available()>>20)
			}
			return m.fresh(name, "extents", region, func(t *contender) error { return m.extentsOn(t, rows) })
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (m *measurement) extentsOn(t *contender, rows []*row) error {
	files := map[string]string{"extents/one": filepath.Join(t.dir, "one"), "extents/many": filepath.Join(t.dir, "many")}
	pieces, err := scatter(files["extents/many"], m.conf.Extents, manyExtents)
	if err != nil {
		return err
	}
	if err := fill(files["extents/one"], m.conf.Extents); err != nil {
		return err
	}
	for name, file := range files {
		n, err := m.countExtents(file)
		if err != nil {
			return err
		}
		// By chance a few pieces are adjacent in the region.
		if name == "extents/many" && n < pieces*9/10 || name == "extents/one" && n > pieces/1000+8 {
			return fmt.Errorf("%s has %d extents", file, n)
		}
		for _, x := range rows {
			if x.Name == name {
				x.cell(t.name).add("extents", float64(n))
			}
		}
		if err := readThrough(file); err != nil { // populates the daemon's mapping
			return err
		}
	}
	for round := range m.conf.Rounds {
		for _, x := range rows {
			err := m.try(round, x.Name, t.name, []*row{x}, func() error {
				output, err := m.fio(m.ctx, "extents", map[string]string{"FILE": files[x.Name], "SIZE": fmt.Sprint(m.conf.Extents)})
				if err != nil {
					return err
				}
				cell, reads := x.cell(t.name), output.Jobs[0].Read
				cell.add("ops/s", reads.IOPS)
				cell.add("p50_us", reads.Latency.Percentile["50.000000"]/1e3)
				cell.add("p99_us", reads.Latency.Percentile["99.000000"]/1e3)
				return nil
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// scatter makes a file of size bytes in about n pieces, in random order in the region. It shares
// the pieces with a contiguous file, which is then deleted, so that the file owns them alone.
func scatter(file string, size, n int64) (pieces int, err error) {
	whole := file + ".whole"
	if err := fill(whole, size); err != nil {
		return 0, err
	}
	from, err := os.Open(whole)
	if err != nil {
		return 0, err
	}
	defer from.Close()
	to, err := os.Create(file)
	if err != nil {
		return 0, err
	}
	defer to.Close()
	piece := max(size/n&^4095, 4096)
	pieces = int(size / piece)
	if err := to.Truncate(size); err != nil {
		return 0, err
	}
	order := rand.New(rand.NewPCG(1, 1)).Perm(pieces)
	for i, j := range order {
		in, out := int64(j)*piece, int64(i)*piece
		if err := share(from, to, in, out, piece); err != nil {
			return 0, err
		}
	}
	if rest := int64(pieces) * piece; rest < size { // the remainder
		if err := share(from, to, rest, rest, size-rest); err != nil {
			return 0, err
		}
	}
	return pieces, os.Remove(whole)
}

// share makes [out, out+size) of to share the blocks of [in, in+size) of from. Offsets and size are
// in bytes.
func share(from, to *os.File, in, out, size int64) error {
	var n int
	err := again(func() (err error) {
		n, err = unix.CopyFileRange(int(from.Fd()), &in, int(to.Fd()), &out, int(size), 0)
		return err
	})
	if err != nil {
		return fmt.Errorf("sharing a piece: %w", err)
	}
	if int64(n) != size {
		return fmt.Errorf("sharing a piece: %d bytes of %d", n, size)
	}
	return nil
}

// fill writes a file of size bytes in the largest requests, after allocating its space in one call.
func fill(file string, size int64) error {
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := again(func() error { return unix.Fallocate(int(f.Fd()), 0, 0, size) }); err != nil {
		return fmt.Errorf("allocating %s: %w", file, err)
	}
	buf := make([]byte, 1<<20)
	rand.NewChaCha8([32]byte{}).Read(buf)
	for off := int64(0); off < size; off += int64(len(buf)) {
		if _, err := f.WriteAt(buf[:min(int64(len(buf)), size-off)], off); err != nil {
			return err
		}
	}
	return nil
}

// readThrough reads a file once.
func readThrough(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	buf := make([]byte, 1<<20)
	for {
		if _, err := f.Read(buf); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// countExtents returns the number of a file's extents.
func (m *measurement) countExtents(file string) (int, error) {
	l, err := m.extentsOf(file)
	return len(l), err
}

// extentsOf returns a file's extents, as `daxfsd filefrag` reports them.
func (m *measurement) extentsOf(file string) ([]fusefs.Extent, error) {
	out, err := program(m.ctx, "", m.daxfsd, "filefrag", "--json", file)
	if err != nil {
		return nil, fmt.Errorf("filefrag: %w\n%s", err, out)
	}
	var files []struct {
		Extents []fusefs.Extent `json:"extents"`
	}
	if err := json.Unmarshal([]byte(out), &files); err != nil || len(files) != 1 {
		return nil, fmt.Errorf("filefrag printed no JSON for one file: %w", err)
	}
	return files[0].Extents, nil
}
