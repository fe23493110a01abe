package fusefs

import (
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/daxfsd/daxfsd/fs"
	"github.com/daxfsd/daxfsd/fs/transport"
)

// TestNoSpaceLeavesTheQueue checks a write that finds no free space, because a read in flight still
// references blocks that were freed. The write must not wait on the queue's thread, but become a
// slow request, which waits on a goroutine.
func TestNoSpaceLeavesTheQueue(t *testing.T) {
	m := newMounted(t, DAXAlways)
	v := m.v
	const size = 1 << 20
	big, rest, next := m.create("big", 0o644), m.create("rest", 0o644), m.create("next", 0o644)
	m.write(big, 0, make([]byte, size))
	m.write(next, 0, []byte("x"))
	var s fs.StatFS
	v.FS.StatFS(&s)
	v.Fallocate(rest, 0, 0, int64(s.Bavail)<<12)
	r := v.FS.NewPinnedRead()
	v.OK(v.FS.Read(&v.Ctx, big, 0, size, r))
	v.Truncate(big, 0)
	data := make([]byte, size/2)
	if n, e := m.Queue(0).Write(&transport.InHeader{NodeID: next}, &transport.WriteIn{Offset: 4096}, data); e != transport.SlowPath {
		t.Errorf("on the queue's thread: %d bytes, %v", n, e)
	}
	time.AfterFunc(20*time.Millisecond, func() { r.Done(); r.Free() })
	n, st := m.Write(nil, &fuse.WriteIn{InHeader: header(next), Offset: 4096}, data)
	if m.ok("write", st); int(n) != len(data) {
		t.Errorf("wrote %d bytes of %d", n, len(data))
	}
}
