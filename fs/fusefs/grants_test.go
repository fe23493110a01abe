package fusefs

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// TestGrantsXattr checks that the parts of a long list are the list, for root and for others, and
// that each part fits a value.
func TestGrantsXattr(t *testing.T) {
	m := newMounted(t, DAXAlways)
	var list []Grant
	now := time.Unix(2e9, 999999999)
	for id := range uint64(1000) {
		list = append(list, Grant{ID: 1<<61 - 2000 + id, PID: 1 << 30, Command: strings.Repeat("\x01", 15), UID: 1 << 31, Inode: 1 << 62, Bytes: 1 << 45, Mode: "rw", State: GrantPromised,
			Pages: []PageBytes{{1 << 30, 1 << 45}, {4096, 1 << 45}}, Since: &now})
	}
	for i := range int64(200) {
		list = append(list, Grant{Region: i << 12, Bytes: 4096, Mode: "rw", State: GrantFound, Stale: true})
	}
	m.grants = func(from uint64, most int) []Grant {
		i := slices.IndexFunc(list, func(g Grant) bool { return g.Key() >= from })
		return list[i:min(len(list), i+min(most, len(list)))]
	}
	for _, uid := range []uint32{0, 1000} {
		var got []Grant
		h, name := header(1), GrantsXattr
		h.Uid = uid
		for n := 0; ; n++ {
			buf := make([]byte, 64<<10)
			k, s := m.GetXAttr(nil, &h, name, buf)
			m.ok("getxattr "+name, s)
			var part Grants
			if err := json.Unmarshal(buf[:k], &part); err != nil {
				t.Fatal(err)
			}
			got = append(got, part.Grants...)
			if part.Next == 0 {
				break
			}
			name = GrantsFrom(part.Next)
		}
		if a, b := mustJSON(t, got), mustJSON(t, list); a != b {
			t.Errorf("user %d: %d grants, want %d", uid, len(got), len(list))
		}
	}
	for _, name := range []string{GrantsXattr + "x", GrantsXattr + ".", GrantsXattr + ".x", GrantsXattr + "5"} {
		h := header(1)
		if _, s := m.GetXAttr(nil, &h, name, nil); s == fuse.OK || s == fuse.ERANGE {
			t.Errorf("%s: %v", name, s)
		}
	}
}

func mustJSON(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
