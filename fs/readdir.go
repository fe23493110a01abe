package fs

import (
	"syscall"

	"github.com/daxfsd/daxfsd/fs/layout"
)

// Dirent is one directory entry, as ReadDir passes it on. Name is valid during the call only.
type Dirent struct {
	Ino  uint64
	Type uint8 // DT_*
	Name []byte
	Next uint64 // cookie that resumes after this entry
	dir  *inode // the directory that the entry is in
}

// firstCookie is the cookie of position 0. The cookies before it are those of "." and "..".
const firstCookie = 2

// ReadDir calls emit for the entries of a directory from the cookie on (0: from the start), "." and
// ".." first, until emit returns false. Cookies stay valid across changes of the directory and
// across mounts.
func (fs *FS) ReadDir(ctx *Caller, ino, cookie uint64, emit func(*Dirent) bool) syscall.Errno {
	in, e := fs.getDir(ctx, ino)
	if e != 0 {
		return e
	}
	defer fs.put(in, 1)
	fs.accessed(ctx, in)
	if cookie == 0 && !emit(&Dirent{dir: in, Ino: in.ino, Type: syscall.DT_DIR, Name: []byte("."), Next: 1}) {
		return 0
	}
	if cookie <= 1 && !emit(&Dirent{dir: in, Ino: in.parent.Load(), Type: syscall.DT_DIR, Name: []byte(".."), Next: firstCookie}) {
		return 0
	}
	b := fs.pools.dirBatches.Get().(*dirBatch)
	defer func() {
		clear(b.ents[:]) // they would keep the directory in memory
		fs.pools.dirBatches.Put(b)
	}()
	told := false
	for cookie = max(cookie, firstCookie); ; cookie = b.ents[b.n-1].Next {
		b.n, b.names = 0, b.names[:0]
		in.mu.RLock()
		err := fs.readDir(in, cookie-firstCookie, b.add)
		in.mu.RUnlock()
		for i := range b.ents[:b.n] {
			if !emit(&b.ents[i]) {
				return 0
			}
			told = true
		}
		if err != nil && told { // after entries a call succeeds; the next call has the error
			return 0
		}
		if err != nil || b.n == 0 {
			return errno(err)
		}
	}
}

// dirBatch is a copy of some entries of a directory, so that emit is called without the directory's
// lock. emit looks the children up. A child's lock comes after the lock of the directory that the
// child is in, and on damaged media that need not be this directory.
type dirBatch struct {
	ents  [32]Dirent
	n     int    // entries in ents
	names []byte // holds the entries' names; its capacity suffices for all
}

func newDirBatch() *dirBatch {
	return &dirBatch{names: make([]byte, 0, len(dirBatch{}.ents)*layout.NameMax)}
}

// add appends a copy of e, and reports whether there is room for another entry.
func (b *dirBatch) add(e *Dirent) bool {
	at := len(b.names)
	b.names = append(b.names, e.Name...)
	b.ents[b.n] = *e
	b.ents[b.n].Name = b.names[at:len(b.names):len(b.names)]
	b.n++
	return b.n < len(b.ents)
}

func (fs *FS) readDir(in *inode, pos uint64, emit func(*Dirent) bool) error {
	var l layout.Line
	var name [layout.NameMax]byte
	for at, off, ok := in.dir.Next(pos); ok; at, off, ok = in.dir.Next(pos) {
		if err := fs.journal.ReadLine(off, &l); err != nil {
			return err
		}
		if l.DentryKind() != layout.DentryHead {
			pos = at + 1 // the cookie pointed into a dentry
			continue
		}
		nl, n := l.DentryNameLen(), layout.DentryLines(l.DentryNameLen())
		pos = at + uint64(n)
		e := Dirent{dir: in, Ino: l.DentryIno(), Type: l.DentryType(), Next: pos + firstCookie}
		nm := append(name[:0], l.NamePart(0, nl)...)
		for j := 1; j < n; j++ {
			if err := fs.journal.ReadLine(off+int64(j)*layout.LineSize, &l); err != nil {
				return err
			}
			nm = append(nm, l.NamePart(j, nl)...)
		}
		e.Name = nm
		if !emit(&e) {
			return nil
		}
	}
	return nil
}
