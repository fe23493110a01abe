package transport

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/daxfsd/daxfsd/internal/invariants"
)

// TestBuckets checks that every latency is in the bucket with the bounds around it, and that bounds
// are close together.
func TestBuckets(t *testing.T) {
	for i := range nbuckets - 1 {
		from, to := bucketBound(i-1), bucketBound(i)
		if bucketOf(from) != i || bucketOf(to-1) != i || bucketOf(to) != i+1 {
			t.Errorf("bucket %d is from %d to %d, where the buckets are %d, %d and %d", i, from, to, bucketOf(from), bucketOf(to-1), bucketOf(to))
		}
		if i > 0 && to-from > from/4 {
			t.Errorf("bucket %d is from %d to %d: more than a quarter wide", i, from, to)
		}
	}
	if bucketBound(0) != 128 || bucketBound(nbuckets-1) != 1<<35 {
		t.Errorf("the buckets go from %d to %d", bucketBound(0), bucketBound(nbuckets-1))
	}
	for _, ns := range []uint64{1 << 35, 1 << 63, 1<<64 - 1} {
		if bucketOf(ns) != nbuckets-1 {
			t.Errorf("%d is in bucket %d", ns, bucketOf(ns))
		}
	}
}

// TestQuantile checks that the quantiles of a histogram are those of the latencies, to within a
// quarter.
func TestQuantile(t *testing.T) {
	if q := Histogram(nil).Quantile(.5); q != 0 {
		t.Errorf("of nothing: %d", q)
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 100 {
		h, all := make(Histogram, nbuckets), make([]uint64, 1+rnd.IntN(1000))
		for i := range all {
			all[i] = 128 + uint64(rnd.ExpFloat64()*1e5)
			h[bucketOf(all[i])]++
		}
		slices.Sort(all)
		for _, p := range []float64{0, .01, .5, .9, .99, 1} {
			want := all[max(0, int(p*float64(len(all))+.999999)-1)]
			if got := h.Quantile(p); float64(got) < .8*float64(want) || float64(got) > 1.26*float64(want) {
				t.Errorf("quantile %v of %d latencies: %d, not about %d", p, len(all), got, want)
			}
		}
	}
}

// TestStatsAddUp checks that the counts of two queues add up, and that the difference of two
// moments is what was done between them.
func TestStatsAddUp(t *testing.T) {
	var c, d counters
	do := func(c *counters, opcode uint32, e int32, moved uint64, took time.Duration) {
		k := c.begin(&InHeader{Opcode: opcode}, nil, nil, nil)
		k.since -= int64(took)
		k.end(e, moved)
		k.end(e, moved) // does nothing
	}
	for range 10 {
		do(&c, opRead, 0, 4096, time.Second)
		do(&d, opRead, 0, 1000, 2*time.Second)
	}
	do(&d, opLookup, -int32(unix.ENOENT), 0, 0)
	before := sum([]*counters{&c, &d})
	r := before["READ"]
	if r.Count != 20 || r.Errors != 0 || r.Bytes != 50960 || r.InFlight != 0 || r.P50 < 900e6 || r.P50 > 1400e6 || r.P90 < 1600e6 || r.P999 > r.Max || r.Max < 2e9 {
		t.Errorf("READ: %+v", r)
	}
	if l := before["LOOKUP"]; l.Count != 1 || l.Errors != 0 || l.Negative != 1 || len(before) != 2 {
		t.Errorf("LOOKUP: %+v of %d", l, len(before))
	}
	if all := before.Total(); all.Count != 21 || all.Errors != 0 || all.Negative != 1 || all.Bytes != 50960 {
		t.Errorf("all: %+v", all)
	}
	do(&c, opRead, -int32(unix.EIO), 0, 10*time.Millisecond)
	do(&d, opWrite, 0, 7, 0)
	busy := d.begin(&InHeader{Opcode: opFsync}, nil, nil, nil)
	diff := sum([]*counters{&c, &d}).Since(before)
	if r := diff["READ"]; r.Count != 1 || r.Errors != 1 || r.Bytes != 0 || r.Max < 10e6 || r.Max > 1e9 || r.P50 > r.Max {
		t.Errorf("READ since: %+v", r)
	}
	if w, f := diff["WRITE"], diff["FSYNC"]; len(diff) != 3 || w.Count != 1 || w.Bytes != 7 || f.Count != 0 || f.InFlight != 1 {
		t.Errorf("since: %+v", diff)
	}
	if busy.end(0, 0); sum([]*counters{&d})["FSYNC"].InFlight != 0 || sum([]*counters{&d})["FSYNC"].Count != 1 {
		t.Errorf("FSYNC: %+v", sum([]*counters{&d})["FSYNC"])
	}
}

// TestNegativeAnswers checks that the regular answers of a healthy filesystem do not count as
// errors.
func TestNegativeAnswers(t *testing.T) {
	var c counters
	for e, failed := range map[unix.Errno]bool{
		unix.ENOENT: false, unix.EEXIST: false, unix.ENODATA: false, unix.ERANGE: false, unix.EACCES: false, unix.EPERM: false, unix.ENOTEMPTY: false,
		unix.ENOTDIR: false, unix.EISDIR: false, unix.ENXIO: false, unix.EINTR: false, unix.EAGAIN: false, unix.EROFS: false, unix.ENOTTY: false,
		unix.EOPNOTSUPP: false, unix.ENOSYS: false, unix.EINVAL: false, unix.EFBIG: false, unix.ENAMETOOLONG: false, unix.EXDEV: false, unix.EMLINK: false, unix.ESTALE: false,
		unix.EIO: true, unix.ENOSPC: true, unix.ENOMEM: true, unix.EUCLEAN: true, unix.EDQUOT: true,
	} {
		before := sum([]*counters{&c})["GETATTR"]
		k := c.begin(&InHeader{Opcode: opGetattr}, nil, nil, nil)
		k.end(-int32(e), 0)
		now := sum([]*counters{&c})["GETATTR"]
		if got := now.Errors > before.Errors; got != failed || now.Errors+now.Negative != now.Count {
			t.Errorf("%v counts as an error: %v, want %v; of %d answers %d failed and %d are negative", e, got, failed, now.Count, now.Errors, now.Negative)
		}
	}
}

// TestStatsAndTrace checks that every request of a connection is counted and traced.
func TestStatsAndTrace(t *testing.T) {
	var mu sync.Mutex
	var trace []Request
	f := &echo{data: make([]byte, 1<<16)}
	k := connectWith(t, f, 3, Options{Warn: t.Logf, Trace: func(r *Request) {
		mu.Lock()
		defer mu.Unlock()
		trace = append(trace, *r)
	}})
	lookup := request(opLookup, 1, "abc\x00")
	as[InHeader](lookup).UID, as[InHeader](lookup).PID = 3, 4
	for _, req := range [][]byte{
		request(opRead, 2, ReadIn{Offset: 4096, Size: 5000}), request(opRead, 3, ReadIn{Size: 4096}), request(opRead, 13, ReadIn{Size: 1}),
		request(opWrite, 2, WriteIn{Offset: 5, Size: 3}, "abc"), lookup, request(opRename2, 1, Rename2In{Newdir: 1}, "old\x00new\x00"),
		request(opSymlink, 1, "name\x00target\x00"), request(opUnlink, 1, "ab\x00"), request(opLseek, 2, uint64(0), uint64(12345), uint64(0)),
		request(opFallocate, 2, uint64(0), uint64(1<<40), uint64(1<<33), uint64(0)), request(999, 2, "something"),
	} {
		k.ask(req)
	}
	f.refuse.Store(true) // a WRITE becomes a slow request, which is counted once
	k.ask(request(opWrite, 2, WriteIn{Offset: 6, Size: 2}, "xy"))
	if err := unix.Send(k.fd, request(opForget, 2, ForgetIn{1}), 0); err != nil {
		t.Fatal(err)
	}
	want := map[string]Operation{
		"READ": {Count: 3, Errors: 1, Negative: 1, Bytes: 5000}, "WRITE": {Count: 2, Bytes: 3 + inHeaderSize + writeInSize + 2}, "LOOKUP": {Count: 1},
		"RENAME2": {Count: 1, Errors: 1}, "SYMLINK": {Count: 1}, "UNLINK": {Count: 1, Negative: 1}, "LSEEK": {Count: 1}, "FALLOCATE": {Count: 1},
		"UNKNOWN": {Count: 1}, "FORGET": {Count: 1},
	}
	var got Stats
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		if got = k.s.Stats(); got.Total().Count == 13 || time.Now().After(deadline) {
			break
		}
	}
	for name, w := range want {
		if g := got[name]; g.Count != w.Count || g.Errors != w.Errors || g.Negative != w.Negative || g.Bytes != w.Bytes || g.InFlight != 0 || g.Max == 0 || g.P50 == 0 || g.P50 > g.Max {
			t.Errorf("%s: %+v, want %+v", name, g, w)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d operations, want %d: %v", len(got), len(want), got)
	}

	mu.Lock()
	defer mu.Unlock()
	wantTrace := []Request{
		{Op: "READ", NodeID: 2, Ranged: true, Offset: 4096, Size: 5000, Moved: 5000},
		{Op: "READ", NodeID: 3, Ranged: true, Size: 4096, Error: syscall.EISDIR},
		{Op: "READ", NodeID: 13, Ranged: true, Size: 1, Error: syscall.EIO},
		{Op: "WRITE", NodeID: 2, Ranged: true, Offset: 5, Size: 3, Moved: 3},
		{Op: "LOOKUP", NodeID: 1, UID: 3, PID: 4, Name: "abc"},
		{Op: "RENAME2", NodeID: 1, Name: "old", NewName: "new", Error: 133},
		{Op: "SYMLINK", NodeID: 1, Name: "name", NewName: "target"},
		{Op: "UNLINK", NodeID: 1, Name: "ab", Error: 2},
		{Op: "LSEEK", NodeID: 2, Ranged: true, Offset: 12345},
		{Op: "FALLOCATE", NodeID: 2, Ranged: true, Offset: 1 << 40, Size: 1 << 33},
		{Op: "UNKNOWN", NodeID: 2},
		{Op: "WRITE", NodeID: 2, Ranged: true, Offset: 6, Size: 2, Moved: inHeaderSize + writeInSize + 2},
		{Op: "FORGET", NodeID: 2},
	}
	// Two queues may end their requests in either order.
	order := func(a, b Request) int {
		return bytes.Compare([]byte(a.Op+string(rune('a'+a.Offset%7))+string(rune('a'+a.NodeID))), []byte(b.Op+string(rune('a'+b.Offset%7))+string(rune('a'+b.NodeID))))
	}
	slices.SortFunc(trace, order)
	slices.SortFunc(wantTrace, order)
	for i := range trace {
		if trace[i].Took <= 0 || trace[i].Unique != 77 {
			t.Errorf("%+v", trace[i])
		}
		trace[i].Took, trace[i].Unique = 0, 0
	}
	if !slices.Equal(trace, wantTrace) {
		t.Errorf("the trace is\n%+v, want\n%+v", trace, wantTrace)
	}
}

// TestUringServeAllocatesNothing checks that the io_uring transport serves without allocating. The
// ring is a real one; there is no connection.
func TestUringServeAllocatesNothing(t *testing.T) {
	if invariants.Enabled {
		t.Skip("checks allocate")
	}
	r, err := newRing()
	if err != nil {
		t.Skipf("no io_uring here: %v", err)
	}
	defer r.close()
	es, mem, err := newEntries(1)
	if err != nil {
		t.Fatal(err)
	}
	defer unmapMemory(mem)
	f := &echo{data: make([]byte, 1<<20), wrong: t.Errorf}
	q := &uringQueue{s: newServer(f, Options{Warn: t.Logf}), ring: r, entries: es, q: f.Queue(0), fd: -1}
	for name, req := range map[string][]byte{
		"READ": request(opRead, 2, ReadIn{Size: 4096}), "WRITE": request(opWrite, 2, WriteIn{Size: 4096}, string(make([]byte, 4096))),
	} {
		serve := func() {
			e := es[0]
			copy(e.hdr.inOut[:], req[:inHeaderSize])
			copy(e.hdr.opIn[:], req[inHeaderSize:][:readInSize])
			e.hdr.ent.payloadSz = uint32(copy(e.payload, req[inHeaderSize+readInSize:]))
			q.serve(0)
			r.tail = 0 // the entry is not submitted
		}
		if n := testing.AllocsPerRun(1000, serve); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
		if o := sum([]*counters{&q.counters})[name]; o.Count != 1001 || o.Bytes != 1001*4096 || o.Errors != 0 || o.InFlight != 0 {
			t.Errorf("%s: %+v", name, o)
		}
	}
}

// BenchmarkServe measures the daemon's part of a READ, without a filesystem and the kernel.
func BenchmarkServe(b *testing.B) {
	f := &echo{data: make([]byte, 1<<20)}
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		b.Fatal(err)
	}
	defer null.Close()
	q := &devQueue{s: &Server{fs: f}, fd: int(null.Fd()), q: f.Queue(0)}
	q.ans.room = make([]byte, MaxIO)
	req := request(opRead, 2, ReadIn{Size: 4096})
	b.ReportAllocs()
	for b.Loop() {
		q.serve(req)
	}
}

// TestStatsFit checks that the statistics as JSON fit into the value of an extended attribute,
// which has at most 64 KiB, even with a million requests in every bucket of every operation.
func TestStatsFit(t *testing.T) {
	s := Stats{}
	for _, name := range opNames {
		o := Operation{Count: 1e12, Errors: 1e12, Negative: 1e12, Bytes: 1e15, InFlight: 100, P50: 1e10, P90: 1e10, P99: 1e10, P999: 1e10, Max: 1e10}
		for range nbuckets {
			o.Latency = append(o.Latency, 1e6)
		}
		s[name] = o
	}
	if b, err := json.Marshal(s); err != nil || len(b) > 62<<10 {
		t.Errorf("%d operations take %d bytes, %v", len(s), len(b), err)
	}
}
