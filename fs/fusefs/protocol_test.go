package fusefs

import (
	"encoding/binary"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// TestProtocolVersion checks that a kernel with a newer FUSE protocol gets the version in our
// constants.
func TestProtocolVersion(t *testing.T) {
	const opInit, newer = 26, 1000
	in := &fuse.InitIn{Major: ProtocolMajor, Minor: newer}
	in.InHeader = fuse.InHeader{Opcode: opInit, Unique: 1}
	b := bytesOf(in)
	in.Length = uint32(len(b))
	var out [256]byte
	p := fuse.NewProtocolServer(fuse.NewDefaultRawFileSystem(), &fuse.MountOptions{})
	if n, st := p.HandleRequest([][]byte{b}, [][]byte{out[:]}); !st.Ok() || n < 24 {
		t.Fatalf("INIT is answered with %d bytes, %v", n, st)
	}
	major, minor := binary.NativeEndian.Uint32(out[16:]), binary.NativeEndian.Uint32(out[20:]) // behind the header
	if major != ProtocolMajor || minor != ProtocolMinor {
		t.Errorf("INIT is answered with protocol %d.%d; want %d.%d, our constants", major, minor, ProtocolMajor, ProtocolMinor)
	}
}
