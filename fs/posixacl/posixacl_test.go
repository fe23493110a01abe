package posixacl

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// value encodes a list written as text, such as "u::rw-,u:5:r--,g::r--,m::rw-,o::---"; x is an
// unknown tag. It shares no code with the package.
func value(text string) []byte {
	b := []byte{2, 0, 0, 0}
	if text == "" {
		return b
	}
	for _, e := range strings.Split(text, ",") {
		f := strings.Split(e, ":")
		tag, id := map[string]uint16{"u": 1, "g": 4, "m": 0x10, "o": 0x20, "x": 0x40}[f[0]], uint32(1<<32-1)
		if f[1] != "" {
			tag *= 2
			fmt.Sscan(f[1], &id)
		}
		perm := uint16(0)
		for i, c := range "rwx" {
			if rune(f[2][i]) == c {
				perm |= 4 >> i
			}
		}
		b = binary.LittleEndian.AppendUint16(b, tag)
		b = binary.LittleEndian.AppendUint16(b, perm)
		b = binary.LittleEndian.AppendUint32(b, id)
	}
	return b
}

// list parses the value of text; "" gives nil.
func list(t *testing.T, text string) List {
	t.Helper()
	l, err := Parse(value(text))
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return l
}

func same(a List, text string) bool {
	if a == nil {
		return text == ""
	}
	return bytes.Equal(a.Bytes(), value(text))
}

func TestParse(t *testing.T) {
	good := value("u::rw-,g::r--,o::r--")
	for _, c := range []struct {
		name  string
		value []byte
		want  error
	}{
		{"empty", nil, ErrMalformed},
		{"part of a head", good[:3], ErrMalformed},
		{"part of an entry", good[:len(good)-1], ErrMalformed},
		{"version 1", append([]byte{1, 0, 0, 0}, good[4:]...), ErrVersion},
		{"no others", value("u::rw-,g::r--"), ErrMalformed},
		{"no group", value("u::rw-,o::r--"), ErrMalformed},
		{"no owner", value("g::r--,o::r--"), ErrMalformed},
		{"user without mask", value("u::rw-,u:5:r--,g::r--,o::---"), ErrMalformed},
		{"group without mask", value("u::rw-,g::r--,g:5:r--,o::---"), ErrMalformed},
		{"user after group", value("u::rw-,g::r--,u:5:r--,m::r--,o::---"), ErrMalformed},
		{"two owners", value("u::rw-,u::rw-,g::r--,o::---"), ErrMalformed},
		{"two others", value("u::rw-,g::r--,o::---,o::---"), ErrMalformed},
		{"unknown tag", value("u::rw-,g::r--,x::r--,m::r--,o::---"), ErrMalformed},
		{"permissions 8", append(value("u::rw-,g::r--"), 0x20, 0, 8, 0, 255, 255, 255, 255), ErrMalformed},
		{"no entries", value(""), nil},
		{"minimal", good, nil},
		{"mask alone", value("u::rw-,g::r--,m::r--,o::---"), nil},
		{"all tags", value("u::rwx,u:1:r--,u:2:-w-,g::r--,g:1:--x,g:2:---,m::rwx,o::--x"), nil},
	} {
		l, err := Parse(c.value)
		if err != c.want {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
		if err == nil && l != nil && !bytes.Equal(l.Bytes(), c.value) {
			t.Errorf("%s: encoded again as %x, was %x", c.name, l.Bytes(), c.value)
		}
	}
}

func TestModes(t *testing.T) {
	for _, c := range []struct {
		list    string
		mode    uint16 // mode of the file before SetMode
		set     uint16 // mode of the file after SetMode
		kept    string // the list that SetMode keeps
		chmod   uint16
		changed string // the list after Chmod; "": unchanged
	}{
		{"u::rw-,g::r--,o::---", 0o100777, 0o100640, "", 0o640, ""},
		{"u::rw-,g::r--,o::---", 0o102777, 0o102640, "", 0o751, "u::rwx,g::r-x,o::--x"},
		{"u::rwx,g::r--,m::rw-,o::--x", 0o100000, 0o100761, "u::rwx,g::r--,m::rw-,o::--x", 0o104761, ""},
		{"u::rwx,u:5:rwx,g::r--,m::rwx,o::---", 0o40700, 0o40770, "u::rwx,u:5:rwx,g::r--,m::rwx,o::---", 0o40504,
			"u::r-x,u:5:rwx,g::r--,m::---,o::r--"},
	} {
		l := list(t, c.list)
		if mode, kept := l.SetMode(c.mode); mode != c.set || !same(kept, c.kept) {
			t.Errorf("%s set on mode %o: mode %o, want %o; kept %v, want %q", c.list, c.mode, mode, c.set, kept, c.kept)
		}
		a, changed := l.Chmod(c.chmod)
		if want := cmp.Or(c.changed, c.list); changed != (c.changed != "") || !same(a, want) {
			t.Errorf("%s after chmod %o: %v, changed %v, want %s", c.list, c.chmod, a, changed, want)
		}
		if !same(l, c.list) {
			t.Errorf("%s was changed in place", c.list)
		}
	}
	if l, changed := List(nil).Chmod(0o777); changed || l != nil {
		t.Errorf("chmod of no list: %v, %v", l, changed)
	}
}

func TestInherit(t *testing.T) {
	for _, c := range []struct {
		def    string
		mode   uint16
		want   uint16
		access string
	}{
		{"u::rwx,g::r-x,o::---", 0o100666, 0o100640, ""},
		{"u::rwx,g::rwx,o::rwx", 0o40750, 0o40750, ""},
		{"u::rwx,u:5:rwx,g::rwx,m::rwx,o::r-x", 0o100644, 0o100644, "u::rw-,u:5:rwx,g::rwx,m::r--,o::r--"},
		{"u::r--,u:5:rwx,g::rwx,m::r-x,o::---", 0o102777, 0o102450, "u::r--,u:5:rwx,g::rwx,m::r-x,o::---"},
	} {
		l := list(t, c.def)
		for _, isDir := range []bool{false, true} {
			mode, access, def := l.Inherit(c.mode, isDir)
			if wantDef := map[bool]string{true: c.def}[isDir]; mode != c.want || !same(access, c.access) || !same(def, wantDef) {
				t.Errorf("mode %o in a directory of %s, directory %v: mode %o, want %o; access %v, want %q; default %v, want %q",
					c.mode, c.def, isDir, mode, c.want, access, c.access, def, wantDef)
			}
		}
	}
}

// TestParseRandom parses values of random entries. No value causes a panic, and an accepted value
// is encoded as it was, except for the ids of entries that have no id.
func TestParseRandom(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	tags, accepted := []uint16{1, 2, 4, 8, 0x10, 0x20}, 0
	for range 200_000 {
		b := value("")
		for _, tag := range tags {
			for range r.IntN(3) {
				b = binary.LittleEndian.AppendUint16(b, tag)
				b = binary.LittleEndian.AppendUint16(b, uint16(r.IntN(16)>>r.IntN(2)))
				b = binary.LittleEndian.AppendUint32(b, r.Uint32())
			}
		}
		l, err := Parse(b)
		if err != nil || l == nil {
			continue
		}
		accepted++
		again, err := Parse(l.Bytes())
		for i, e := range l {
			if e.tag != tagUser && e.tag != tagGroup {
				l[i].id = undefinedID
			}
		}
		if err != nil || !slices.Equal(again, l) {
			t.Fatalf("%x was read as %v and encoded to %v, %v", b, l, again, err)
		}
	}
	if accepted < 100 {
		t.Errorf("only %d values were accepted: the test tests nothing", accepted)
	}
}
