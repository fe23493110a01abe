package protocol_test

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"github.com/daxfsd/daxfsd/direct/protocol"
)

func grant() (protocol.GrantRequest, protocol.Grant) {
	return protocol.GrantRequest{Flags: protocol.Write, Offset: 4096, Length: 1 << 30, PageSize: 2 << 20}, protocol.Grant{
		Flags: protocol.Write, ID: 7, Inode: 12, RegionDev: 5, RegionIno: 6, UUID: [16]byte{1, 2}, Slot: 8192 + 64, Generation: 42,
		FileSize: 1 << 20, End: 8 << 20, Granule: 4096, RegionSize: 1 << 30, Path: "/dev/dax0.0",
		Extents: []protocol.Extent{{4096, 1 << 20, 2<<20 - 4096}, {2 << 20, 4 << 20, 6 << 20}},
	}
}

func command() protocol.Command {
	return protocol.Command{ID: 3, Generation: 8, Offset: 17, Length: 1 << 40}
}

// TestRoundTrip checks that what is encoded is decoded.
func TestRoundTrip(t *testing.T) {
	q, g := grant()
	b := make([]byte, protocol.GrantSize)
	var q2 protocol.GrantRequest
	if q.Encode(b); q2.Decode(b) != nil || q2 != q {
		t.Errorf("request: %+v, want %+v", q2, q)
	}
	var g2 protocol.Grant
	g.Encode(b)
	if err := g2.Decode(b, &q); err != nil || !reflect.DeepEqual(g, g2) {
		t.Errorf("grant: %+v, %v, want %+v", g2, err, g)
	}
	q.Flags, g.Flags, g.Extents = 0, 0, nil // with holes
	for i := range uint64(protocol.MaxExtents) {
		g.Extents = append(g.Extents, protocol.Extent{4096 + i*8192, i * 8192, 4096})
	}
	g.Path = strings.Repeat("p", protocol.MaxPath)
	g.Encode(b)
	if err := g2.Decode(b, &q); err != nil || !reflect.DeepEqual(g, g2) {
		t.Errorf("largest grant: %v", err)
	}
	c, b := command(), make([]byte, protocol.CommandSize)
	var c2 protocol.Command
	if c.Encode(b); c2.Decode(b) != nil || c2 != c {
		t.Errorf("command: %+v, want %+v", c2, c)
	}
	if protocol.EncodeReply(b); protocol.DecodeReply(b) != nil {
		t.Error("a reply is refused")
	}
}

// TestRefused checks that each malformed message is refused, and by which error.
func TestRefused(t *testing.T) {
	put4 := func(off int, v uint32) func([]byte) {
		return func(b []byte) { binary.LittleEndian.PutUint32(b[off:], v) }
	}
	put8 := func(off int, v uint64) func([]byte) {
		return func(b []byte) { binary.LittleEndian.PutUint64(b[off:], v) }
	}
	q, g := grant()
	for _, m := range []struct {
		name   string
		size   int
		encode func([]byte)
		decode func([]byte) error
		spoil  map[string]func([]byte)
	}{
		{"request", protocol.GrantSize, q.Encode, func(b []byte) error { return new(protocol.GrantRequest).Decode(b) }, map[string]func([]byte){
			"version": put4(0, 2), "flags": put4(4, 4), "allocate without write": put4(4, protocol.Allocate), "offset": put8(8, 1),
			"length": put8(16, 4097), "no length": put8(16, 0), "end": put8(8, 1<<62), "page size": put8(24, 12288), "small page": put8(24, 512), "rest": put8(8184, 1),
		}},
		{"grant", protocol.GrantSize, g.Encode, func(b []byte) error { return new(protocol.Grant).Decode(b, &q) }, map[string]func([]byte){
			"version": put4(0, 0), "flags": put4(4, 0), "no id": put8(8, 0), "id": put8(8, 1<<61), "slot": put8(56, 1), "slot outside": put8(56, 1<<30),
			"generation": put8(64, 3), "end": put8(80, 4096), "end behind": put8(80, 1<<30+8192), "granule": put8(88, 100), "region": put8(96, 1<<63),
			"file size": put8(72, 1<<63), "large granule": put8(88, 1<<63), "path": put8(112, 0),
			"extents": put8(104, 321), "extents beyond 32 bits": put8(104, 1<<32|2), "more extents": put8(104, 3), "less extents": put8(104, 1), "extent order": put8(512+24, 8192), "hole": put8(512+16, 1<<20), "extent outside": put8(512+8, 1<<30-4096),
			"extent empty": put8(512+16, 0), "extent end": put8(512+24+16, 8<<20), "hole at the end": put8(512+24+16, 1<<20), "rest": put8(8184, 1),
		}},
		{"command", protocol.CommandSize, func(b []byte) { c := command(); c.Encode(b) }, func(b []byte) error { return new(protocol.Command).Decode(b) }, map[string]func([]byte){
			"version": put4(0, 9), "zero": put4(4, 1), "no id": put8(8, 0), "id": put8(8, 1<<61), "range": put8(24, 1<<62+1), "rest": put8(56, 1),
		}},
	} {
		for name, spoil := range m.spoil {
			b := make([]byte, m.size)
			m.encode(b)
			if err := m.decode(b); err != nil {
				t.Fatalf("%s: %v", m.name, err)
			}
			spoil(b)
			want := protocol.ErrMalformed
			if name == "version" {
				want = protocol.ErrVersion
			}
			if err := m.decode(b); !errors.Is(err, want) {
				t.Errorf("%s, %s: %v, want %v", m.name, name, err, want)
			}
		}
		if err := m.decode(make([]byte, m.size-1)); !errors.Is(err, protocol.ErrMalformed) {
			t.Errorf("%s, a byte short: %v", m.name, err)
		}
	}
}

// TestIdentity checks that identities and their bytes correspond, and lie behind every region.
func TestIdentity(t *testing.T) {
	lo, hi := protocol.Identities()
	rnd := rand.New(rand.NewPCG(1, 1))
	ids := []uint64{1, 2, protocol.MaxID}
	for range 100 {
		ids = append(ids, 1+rnd.Uint64N(protocol.MaxID-1))
	}
	for _, id := range ids {
		for _, w := range []bool{false, true} {
			off := protocol.Identity(id, w)
			got, gotW, ok := protocol.IdentityAt(off)
			if got != id || gotW != w || !ok || off < lo || off >= hi {
				t.Errorf("identity of %d, %v is byte %d, which is of %d, %v, %v", id, w, off, got, gotW, ok)
			}
		}
	}
	for _, off := range []int64{0, 1 << 45, lo - 1, hi, 1<<63 - 1} {
		if _, _, ok := protocol.IdentityAt(off); ok {
			t.Errorf("byte %d is an identity's", off)
		}
	}
}

// FuzzDecode checks that whatever decodes is encoded to the same bytes, and that nothing panics.
func FuzzDecode(f *testing.F) {
	q, g := grant()
	b := make([]byte, protocol.GrantSize)
	q.Encode(b)
	f.Add(b)
	b = make([]byte, protocol.GrantSize)
	g.Encode(b)
	f.Add(b)
	b = make([]byte, protocol.CommandSize)
	c := command()
	c.Encode(b)
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		again := make([]byte, len(b))
		var r protocol.GrantRequest
		if r.Decode(b) == nil {
			if r.Encode(again); string(again) != string(b) {
				t.Errorf("request %+v", r)
			}
		}
		var c protocol.Command
		if c.Decode(b) == nil {
			if c.Encode(again); string(again) != string(b) {
				t.Errorf("command %+v", c)
			}
		}
		var x protocol.Grant
		if x.Decode(b, &q) == nil {
			for _, e := range x.Extents {
				if e.Region+e.Length > x.RegionSize {
					t.Errorf("extent %+v", e)
				}
			}
		}
	})
}
