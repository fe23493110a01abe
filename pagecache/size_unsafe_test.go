package pagecache

import (
	"testing"
	"unsafe"
)

func TestSizes(t *testing.T) {
	if got := unsafe.Sizeof(Space{}); got != 64 {
		t.Errorf("a Space is %d bytes, want 64", got)
	}
	if got := unsafe.Sizeof(node{}); got > 896 {
		t.Errorf("a node is %d bytes, want at most 896", got)
	}
}
