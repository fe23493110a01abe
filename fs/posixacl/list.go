package posixacl

import (
	"encoding/binary"
	"errors"
	"slices"
)

// The attributes that hold an inode's access control lists.
const (
	Access  = "system.posix_acl_access"
	Default = "system.posix_acl_default" // of directories: new entries inherit the list
)

// Errors of Parse.
var (
	ErrMalformed = errors.New("malformed access control list")
	ErrVersion   = errors.New("unknown version of an access control list")
)

// IsName reports whether an attribute holds an access control list.
func IsName(name string) bool { return name == Access || name == Default }

// List is an access control list: entries in the order owner, users, owning group, groups, mask,
// others. nil means that there is no list. It is analogous to the kernel's struct posix_acl.
type List []entry

type entry struct {
	tag, perm uint16 // perm is a combination of 4 (r), 2 (w) and 1 (x)
	id        uint32 // uid or gid; undefinedID for other tags
}

// Tags of entries, and sizes in an attribute's value in bytes.
const (
	tagUserObj  = 0x01
	tagUser     = 0x02
	tagGroupObj = 0x04
	tagGroup    = 0x08
	tagMask     = 0x10
	tagOther    = 0x20

	version     = 2
	headSize    = 4
	entrySize   = 8
	undefinedID = 1<<32 - 1
)

// follows lists the tags that may follow a tag. Tag 0 is the beginning of the list. No tag follows
// tagOther.
var follows = map[uint16][]uint16{
	0:           {tagUserObj},
	tagUserObj:  {tagUser, tagGroupObj},
	tagUser:     {tagUser, tagGroupObj},
	tagGroupObj: {tagGroup, tagMask, tagOther},
	tagGroup:    {tagGroup, tagMask},
	tagMask:     {tagOther},
}

// Parse decodes an attribute's value; a value without entries gives nil. It fails with ErrMalformed
// or ErrVersion. It is analogous to the kernel's posix_acl_from_xattr and posix_acl_valid.
func Parse(b []byte) (List, error) {
	if len(b) < headSize || (len(b)-headSize)%entrySize != 0 {
		return nil, ErrMalformed
	}
	if binary.LittleEndian.Uint32(b) != version {
		return nil, ErrVersion
	}
	var l List
	for b = b[headSize:]; len(b) > 0; b = b[entrySize:] {
		l = append(l, entry{binary.LittleEndian.Uint16(b), binary.LittleEndian.Uint16(b[2:]), binary.LittleEndian.Uint32(b[4:])})
	}
	if len(l) > 0 && !l.valid() {
		return nil, ErrMalformed
	}
	return l, nil
}

// valid reports whether the list is well-formed. It is analogous to the kernel's posix_acl_valid.
func (l List) valid() bool {
	last, users := uint16(0), false
	for _, e := range l {
		if e.perm > 7 || !slices.Contains(follows[last], e.tag) || e.tag == tagOther && users && last != tagMask {
			return false
		}
		users = users || e.tag == tagUser
		last = e.tag
	}
	return last == tagOther
}

// Bytes encodes the list as an attribute's value.
func (l List) Bytes() []byte {
	b := binary.LittleEndian.AppendUint32(nil, version)
	for _, e := range l {
		b = binary.LittleEndian.AppendUint16(b, e.tag)
		b = binary.LittleEndian.AppendUint16(b, e.perm)
		id := e.id
		if e.tag != tagUser && e.tag != tagGroup {
			id = undefinedID
		}
		b = binary.LittleEndian.AppendUint32(b, id)
	}
	return b
}

// get returns the first entry with a tag; nil if there is none.
func (l List) get(tag uint16) *entry {
	for i := range l {
		if l[i].tag == tag {
			return &l[i]
		}
	}
	return nil
}

// class returns the entry that the group bits of the mode show: the mask if there is one, otherwise
// the owning group.
func (l List) class() *entry {
	if e := l.get(tagMask); e != nil {
		return e
	}
	return l.get(tagGroupObj)
}
