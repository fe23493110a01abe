package explore

import (
	"fmt"
	"maps"

	"github.com/daxfsd/daxfsd/fs"
)

// folioSize is the size in bytes of a PMD folio in the explorer's filesystems.
const folioSize = 32768

// inFolios creates the file "big" of 300 000 bytes, whose beginning is in large folios.
func inFolios(w *world) {
	w.create("big")
	w.write("big", 0, fill(203, 300000))
	if s := w.f.Stats(); s.Folios2M+s.Folios1G == 0 {
		panic("big is in no large folio: the workload shows nothing")
	}
}

// borders returns workloads of small writes across the borders of lines, blocks and folios, at
// every alignment, and of cuts out of the middle of large folios.
func borders() (ws []Workload) {
	for n := 2; n <= 7; n++ {
		for before := 1; before < n; before++ {
			at := func(border int) int64 { return int64(border - before) }
			name := fmt.Sprintf("%d-after-%d", n-before, before)
			ws = append(ws,
				into("write-across-line-"+name, none, "f", at(5*lineSize), n),
				into("write-across-block-"+name, none, "f", at(4096), n),
				into("write-across-folio-"+name, inFolios, "big", at(folioSize), n))
		}
	}
	cut := func(name string, mode uint32, off, n int64) Workload {
		return falloc(name+"-in-folio", inFolios, "big", mode, off, n)
	}
	shorter := func(name string, size uint64) Workload {
		return with(name+"-in-folio", inFolios, func(w *world) { w.truncate("big", size) })
	}
	return append(ws,
		cut("punch", punch, folioSize+4096, 8192),
		cut("punch-unaligned", punch, folioSize+3000, 9000),
		cut("punch-two", punch, folioSize-4096, 8192),
		cut("zero", zero, folioSize+4096, 8192),
		cut("zero-unaligned", zero, folioSize+3000, 9000),
		shorter("truncate", folioSize+8192),
		shorter("truncate-unaligned", folioSize+8193),
		shorter("truncate-below", folioSize-4096),
	)
}

// drop removes an extended attribute.
func (n *node) drop(name string) {
	n.xattrs = maps.Clone(n.xattrs)
	delete(n.xattrs, name)
}

const capability = "security.capability"

// privileges returns workloads of changes that remove set-user-ID, set-group-ID and file
// capabilities.
func privileges() []Workload {
	suid := func(w *world) { w.chmod("f", 0o6755) }
	kill := func(valid uint32, size uint64) func(w *world) {
		return func(w *world) {
			w.setattr("f", fs.SetAttr{Valid: valid | fs.SetKillPriv, Size: size})
		}
	}
	capable := func(name string, op func(w *world)) Workload {
		return Workload{Name: name, setup: func(w *world) { tree(w); attributed(w) }, op: func(w *world) {
			w.do(name, func() {
				op(w)
				w.at("d/g").drop(capability)
			})
			s := &w.steps[len(w.steps)-1] // the capability is removed first, by a transaction of its own
			s.mid = s.old.clone()
			s.mid.find(parts("d/g")).drop(capability)
		}}
	}
	return []Workload{
		with("chmod-kills-privileges", suid, kill(0, 0)),
		with("truncate-kills-privileges", suid, kill(fs.SetSize, 4096)),
		with("truncate-up-kills-privileges", suid, kill(fs.SetSize, 50001)),
		capable("write-kills-capability", func(w *world) { w.write("d/g", 300, fill(93, 5000)) }),
		capable("truncate-kills-capability", func(w *world) { w.truncate("d/g", 100) }),
		capable("chown-kills-capability", func(w *world) { w.setattr("d/g", fs.SetAttr{Valid: fs.SetUID, UID: 3}) }),
	}
}
