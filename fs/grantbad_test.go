package fs_test

import (
	"bytes"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/daxfsd/daxfsd/fs"
	"github.com/daxfsd/daxfsd/fs/lease"
)

// TestGrantFindsBadBlocks checks that a grant to write which meets bad memory that is not known
// gets other blocks, as a write does.
func TestGrantFindsBadBlocks(t *testing.T) {
	for name, prepare := range map[string]func(v *volume, ino uint64) []byte{
		"unwritten": func(v *volume, ino uint64) []byte {
			v.Fallocate(ino, 0, 0, 16*4096)
			return make([]byte, 16*4096)
		},
		"hole": func(v *volume, ino uint64) []byte {
			v.Fallocate(ino, 0, 0, 16*4096)
			return make([]byte, 16*4096)
		},
	} {
		t.Run(name, func(t *testing.T) {
			v, path := fileVolume(t, false)
			v.Unmount()
			locks := new(lease.Fake)
			v.Options.Direct, v.Options.Locks = fs.DirectWrite, locks
			v.Mount()
			ino := v.Create("/f")
			want := prepare(v, ino)
			bad := v.Extents(ino)[0].Block + 4
			if name == "hole" { // the same blocks come again
				v.Fallocate(ino, fs.FallocPunchHole|fs.FallocKeepSize, 0, 16*4096)
			}
			spoil(t, path, int64(bad)<<12, 4096, syscall.PROT_NONE)
			g, _, e := v.FS.Direct().Grant(&v.Ctx, ino, &fs.GrantQuery{Hi: 16, Write: true, Allocate: true, Most: 100, Handle: 1})
			if e != 0 || g.Blocks() != 16 {
				t.Fatalf("%v, %+v", e, g)
			}
			for _, p := range g.Parts {
				if p.Block <= bad && bad < p.Block+p.N {
					t.Error("a bad block is granted")
				}
			}
			if got := v.Read(ino, 0, len(want)); !bytes.Equal(got, want) {
				t.Error("the file has changed")
			}
			v.FS.Direct().CloseHandle(1)
		})
	}
}

// TestGrantManyExtents has a program map a file of 100 000 extents as far as it can: it gets part
// after part, no part takes long, and beyond the budget it is told so. Others get their share.
func TestGrantManyExtents(t *testing.T) {
	n := uint64(100_000)
	if testing.Short() {
		n = 10_000
	}
	v := newGranting(t, 1<<30)
	ino, other := v.Create("/f"), v.Create("/other")
	v.Ctx.UID = 7
	for i := range n {
		v.Write(ino, int64(i)*8192, []byte{1})
	}
	v.Write(other, 0, make([]byte, 4096))
	longest, parts := time.Duration(0), 0
	var all []*lease.Grant
	q := &fs.GrantQuery{Hi: 2 * n, Most: 600, Handle: 1}
	for {
		start := time.Now()
		g, _, e := v.FS.Direct().Grant(&v.Ctx, ino, q)
		longest = max(longest, time.Since(start))
		if e == syscall.ENOLCK {
			break
		}
		v.OK(e)
		v.locks.Use(g, 4096, 1)
		v.OK(v.FS.Direct().Confirm(&v.Ctx, ino, g.ID, g.Generation))
		all, parts, q.Lo = append(all, g), parts+len(g.Parts), g.Hi
	}
	t.Logf("%d parts in %d grants, the longest took %v", parts, len(all), longest)
	if parts < lease.Budget/4 || parts > lease.Budget/2 {
		t.Errorf("%d parts, and the budget of a user is %d", parts, lease.Budget/2)
	}
	if longest > 100*time.Millisecond { // far beyond what a busy machine explains
		t.Errorf("a grant took %v", longest)
	}
	v.Ctx.UID = 8
	if _, _, e := v.FS.Direct().Grant(&v.Ctx, other, &fs.GrantQuery{Hi: 1, Most: 1, Handle: 2}); e != 0 {
		t.Errorf("another user's grant: %v", e)
	}
	v.FS.Direct().CloseHandle(2)
	v.Delete("/f")
	v.FS.AwaitDeleted(&v.Ctx)
	for _, g := range all {
		v.locks.Use(g, 4096, -1)
	}
	v.sweepOut()
	if d := v.FS.Stats().DeferredFrees; d != 0 {
		t.Errorf("%d bytes are deferred in the end", d)
	}
}

// TestGrantForeignLock checks that a mount says so when a process has locked the whole region: it
// cannot tell that from programs that map everything. All is well when the process has ended.
func TestGrantForeignLock(t *testing.T) {
	v := newGranting(t, 16<<20)
	ino := v.Create("/f")
	v.Write(ino, 0, make([]byte, 4096))
	free := v.Free()
	v.Unmount()
	v.locks.Lock(0, 1<<63-1, 1)
	v.Mount()
	if n := len(v.said); n == 0 || !strings.Contains(v.said[n-1], "has locked the whole region") {
		t.Errorf("the mount says %q", v.said)
	}
	ino = v.Ino("/f")
	if _, _, e := v.FS.Direct().Grant(&v.Ctx, ino, &fs.GrantQuery{Hi: 1, Most: 1}); e != syscall.ENOLCK {
		t.Errorf("a grant: %v", e)
	}
	if n, e := v.FS.Write(&v.Ctx, ino, 4096, make([]byte, 4096)); e != syscall.ENOSPC {
		t.Errorf("%d bytes, %v in space that may be mapped", n, e)
	}
	v.Write(ino, 0, []byte("in place"))
	v.locks.Lock(0, 1<<63-1, -1)
	v.sweepOut()
	if n := v.Free(); n != free {
		t.Errorf("%d blocks are free, %d before", n, free)
	}
	if _, _, e := v.FS.Direct().Grant(&v.Ctx, ino, &fs.GrantQuery{Hi: 1, Most: 1, Handle: 1}); e != 0 {
		t.Errorf("a grant: %v", e)
	}
	v.FS.Direct().CloseHandle(1)
	v.Remount()
}
