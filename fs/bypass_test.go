package fs_test

import (
	"bytes"
	"fmt"
	"math"
	"syscall"
	"testing"

	"github.com/daxfsd/daxfsd/fs"
)

// kernel simulates the kernel's page cache of one file: one page, which is filled, stored to and
// written back.
type kernel struct {
	*volume
	ino  uint64
	page []byte
}

func newKernel(t *testing.T) *kernel {
	v := newVolume(t, 32<<20)
	k := &kernel{volume: v, ino: v.Create("/f")}
	v.Write(k.ino, 0, bytes.Repeat([]byte("o"), 3*4096))
	return k
}

// fill reads the file's second page into the cache.
func (k *kernel) fill() {
	k.Helper()
	ctx := fs.Caller{Fill: true}
	r := k.FS.NewPinnedRead()
	defer r.Free()
	k.OK(k.FS.Read(&ctx, k.ino, 4096, 4096, r))
	k.page = make([]byte, 4096)
	if _, e := r.Take(k.page); e != 0 {
		k.Fatal(e)
	}
}

func (k *kernel) store(off int, s string) { copy(k.page[off:], s) }

func (k *kernel) writeBack() {
	k.Helper()
	ctx := fs.Caller{Writeback: true}
	n, e := k.FS.Write(&ctx, k.ino, 4096, bytes.Clone(k.page))
	if k.OK(e); n != 4096 {
		k.Fatalf("%d bytes written back", n)
	}
}

// has requires the text want at byte off of the second page.
func (k *kernel) has(off int, want string) {
	k.Helper()
	if got := k.Read(k.ino, 4096+int64(off), len(want)); string(got) != want {
		k.Errorf("at %d of the page: %q, want %q", off, got, want)
	}
}

// TestBypass checks that a page that was read before a bypass does not undo it when it is written
// back. A page that was read after the bypass, or once it was over, is written back unchanged.
func TestBypass(t *testing.T) {
	changes := map[string]func(k *kernel, ctx *fs.Caller) string{
		"write": func(k *kernel, ctx *fs.Caller) string {
			n, e := k.FS.Write(ctx, k.ino, 4096+100, []byte("direct"))
			if k.OK(e); n != 6 {
				k.Fatal(n)
			}
			return "odirecto"
		},
		"punch": func(k *kernel, ctx *fs.Caller) string {
			k.OK(k.FS.Fallocate(ctx, k.ino, fs.FallocPunchHole|fs.FallocKeepSize, 4096+100, 6))
			return "o\x00\x00\x00\x00\x00\x00o"
		},
		"copy": func(k *kernel, ctx *fs.Caller) string {
			src := k.Create(fmt.Sprint("/src", ctx.Direct, k.page == nil))
			k.Write(src, 0, bytes.Repeat([]byte("c"), 4096+106))
			if n, e := k.FS.CopyRange(ctx, src, 100, k.ino, 4096+100, 6); e != 0 || n != 6 {
				k.Fatal(n, e)
			}
			return "occcccco"
		},
		"shared copy": func(k *kernel, ctx *fs.Caller) string {
			src := k.Create(fmt.Sprint("/src", ctx.Direct, k.page == nil))
			k.Write(src, 0, bytes.Repeat([]byte("c"), 4096))
			if n, e := k.FS.CopyRange(ctx, src, 0, k.ino, 4096, 4096); e != 0 || n != 4096 {
				k.Fatal(n, e)
			}
			return "cccccccc"
		},
	}
	for name, change := range changes {
		t.Run(name, func(t *testing.T) {
			k := newKernel(t)
			ctx := fs.Caller{Direct: true}
			change(k, &ctx)
			if ctx.Bypass != nil {
				t.Fatal("a file that the kernel has no page of is waited for")
			}
			k.Write(k.ino, 4096, bytes.Repeat([]byte("o"), 4096))

			k.fill()
			ctx = fs.Caller{Direct: true}
			want := change(k, &ctx)
			if ctx.Bypass == nil {
				t.Fatal("the kernel may have an old page, and there is no bypass")
			}
			k.store(200, "stored")
			k.store(102, "XX") // concurrent with the change: either may win
			k.writeBack()
			k.has(99, want)
			if name != "shared copy" {
				k.has(200, "stored")
			}

			k.fill() // the old page is dropped and read again
			k.store(102, "later")
			k.writeBack()
			k.has(102, "later")
			ctx.Bypass.End()

			k.store(101, "last")
			k.writeBack()
			k.has(101, "last")
		})
	}
}

// TestBypassFailed checks that a bypass that failed does not affect a later writeback.
func TestBypassFailed(t *testing.T) {
	k := newKernel(t)
	k.fill()
	ctx := fs.Caller{Direct: true}
	if _, e := k.FS.Write(&ctx, k.ino, math.MaxInt64, []byte("x")); e == 0 { // beyond the largest offset
		t.Fatal("written at the end of the world")
	}
	if ctx.Bypass != nil {
		ctx.Bypass.End()
	}
	ctx = fs.Caller{Direct: true, UID: 1000}
	big := bytes.Repeat([]byte("b"), 64<<20) // more than the region has
	n, e := k.FS.Write(&ctx, k.ino, 4096+8, big)
	if e != 0 && e != syscall.ENOSPC || n == len(big) {
		t.Fatal(n, e)
	}
	if off, m := ctx.Bypass.Range(); off != 4096+8 || m != int64(n) {
		t.Errorf("%d bytes at %d are kept, of a write of %d", m, off, n)
	}
	ctx.Bypass.End()
}

// TestBypassQueue checks that a caller that must not wait gets EAGAIN before anything has changed.
func TestBypassQueue(t *testing.T) {
	k := newKernel(t)
	k.fill()
	ctx := fs.Caller{Direct: true, NoWait: true}
	if n, e := k.FS.Write(&ctx, k.ino, 4096, []byte("direct")); n != 0 || e != syscall.EAGAIN {
		t.Errorf("%d, %v, want EAGAIN", n, e)
	}
	k.has(0, "oooooo")
}
