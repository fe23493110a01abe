package main

import (
	"fmt"
	"syscall"

	"github.com/daxfsd/daxfsd/fs"
)

const (
	blocksOfPMD = uint64(2*mib) >> 12
	blocksOfPUD = uint64(gib) >> 12
)

// mapping is how page tables would map all files, except for the files' tails.
type mapping struct {
	leaves       uint64
	pmd, pmdBest int64 // bytes in aligned 2 MiB folios, and the most that could be
	pud, pudBest int64 // the same for 1 GiB
	extents      uint64
}

// add counts one file of size bytes, whose extents are es, in order.
func (m *mapping) add(size int64, es []fs.ExtentInfo) {
	end := uint64(size/(2*mib)) * blocksOfPMD // without the tail
	m.pmdBest += int64(end) << 12
	m.pudBest += size / gib * gib
	m.extents += uint64(len(es))
	for _, e := range es {
		lo, hi := e.Logical, min(e.Logical+e.Len, end)
		for lo < hi {
			switch {
			case (lo|e.Block+lo-e.Logical)%blocksOfPUD == 0 && hi-lo >= blocksOfPUD:
				m.pud += gib
				m.pmd += gib
				m.leaves++
				lo += blocksOfPUD
			case (lo|e.Block+lo-e.Logical)%blocksOfPMD == 0 && hi-lo >= blocksOfPMD:
				m.pmd += 2 * mib
				m.leaves++
				lo += blocksOfPMD
			default:
				m.leaves++
				lo++
			}
		}
	}
}

func extents(f *fs.FS, ino uint64) (es []fs.ExtentInfo, err error) {
	e := f.Extents(&fs.Caller{}, ino, 0, func(x fs.ExtentInfo) bool {
		if n := len(es); n > 0 && es[n-1].Logical+es[n-1].Len == x.Logical && es[n-1].Block+es[n-1].Len == x.Block {
			es[n-1].Len += x.Len // unwritten and written: the page table makes no difference
		} else {
			es = append(es, x)
		}
		return true
	})
	if e != 0 {
		return nil, fmt.Errorf("extents: %w", e)
	}
	return es, nil
}

func (a *ager) files() []*file { return append(append([]*file(nil), a.done...), a.grow...) }

// measure computes the figures of the aged filesystem.
func (a *ager) measure() (m mapping, err error) {
	for _, f := range a.files() {
		es, err := extents(a.f, f.ino)
		if err != nil {
			return m, err
		}
		m.add(f.size, es)
	}
	st := a.f.Stats()
	a.res.FreeInAligned2M = float64(st.FreeIn2M) / float64(max(st.FreeData, 1))
	a.res.PMDMappable = float64(m.pmd) / float64(max(m.pmdBest, 1))
	a.res.PUDMappable = float64(m.pud) / float64(max(m.pudBest, 1))
	a.res.Moved = float64(st.MovedBytes) / float64(a.res.Written)
	a.res.TableBytes = st.FolioTableBytes * uint64(1024*gib) / uint64(a.res.Size)
	return m, nil
}

// fresh makes the same files with the same holes, one after the other, on a fresh filesystem.
func (a *ager) fresh(dir string) (m mapping, err error) {
	g, done, err := volume(dir, a.res.Size)
	if err != nil {
		return m, err
	}
	defer done()
	for _, f := range a.files() {
		if f.size < 2*mib {
			continue
		}
		es, err := extents(a.f, f.ino)
		if err != nil {
			return m, err
		}
		var at fs.Attr
		if e := g.Mknod(&a.ctx, 1, f.name, syscall.S_IFREG|0o644, 0, &at); e != 0 {
			return m, fmt.Errorf("create: %w", e)
		}
		for i := 0; i < len(es); {
			j, end := i+1, es[i].Logical+es[i].Len
			for j < len(es) && es[j].Logical == end {
				end += es[j].Len
				j++
			}
			if e := g.Fallocate(&a.ctx, at.Ino, fs.FallocKeepSize, int64(es[i].Logical)<<12, int64(end-es[i].Logical)<<12); e != 0 {
				return m, fmt.Errorf("allocate: %w", e)
			}
			i = j
		}
		if es, err = extents(g, at.Ino); err != nil {
			return m, err
		}
		m.add(f.size, es)
	}
	return m, nil
}
