package fusefs

import (
	"cmp"
	"encoding/json"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// GrantsXattr has a part of the list of grants as its value, Grants in JSON. GrantsFrom names the
// attributes with the other parts.
const GrantsXattr = "system.daxfsd.grants"

// grantsMost is how many grants one value has, so that it is shorter than the 64 KiB that
// getxattr(2) can return.
const grantsMost = 96

// GrantsFrom names the attribute whose value is the list of grants from a key on, see Grants.Next.
func GrantsFrom(key uint64) string { return GrantsXattr + "." + strconv.FormatUint(key, 10) }

// Grants is a part of the list of what programs may map. Later versions may only add fields.
type Grants struct {
	Grants []Grant `json:"grants"`
	Next   uint64  `json:"next,omitempty"` // key of the first grant that is missing; 0: none is
}

// Grant is what a program may map of a file, or what a mount found that programs map by a grant of
// a former mount.
type Grant struct {
	ID      uint64 `json:"id,string,omitempty"` // a string, since it needs more than 53 bits; 0: of a former mount
	PID     int    `json:"pid,omitempty"`       // of the process that asked, as the daemon sees it, or of its thread if that is gone
	Command string `json:"command,omitempty"`   // name of the process, if it lives
	UID     uint32 `json:"uid"`
	Inode   uint64 `json:"inode,omitempty"`         // of the file; 0: the file is gone, or not known
	File    string `json:"file,omitempty"`          // its path; the daemon does not know it
	Region  int64  `json:"region_offset,omitempty"` // of the first byte, for a grant of a former mount
	Bytes   int64  `json:"bytes"`
	Mode    string `json:"mode"`  // ro, rw
	State   string `json:"state"` // see GrantPromised
	Stale   bool   `json:"stale"` // what is mapped may not be the file's any more
	// Pages is by which pages it can be mapped.
	Pages []PageBytes `json:"pages"`
	Since *time.Time  `json:"since,omitempty"` // nil for a grant of a former mount
}

// The states of a Grant.
const (
	GrantPromised = "promised" // the program has not mapped it yet
	GrantMapped   = "mapped"   // the program has locked it
	GrantFound    = "found"    // locked since a former mount
)

// PageBytes is how many bytes can be mapped by pages of a size in bytes; of size 0: only apart from
// the others.
type PageBytes struct {
	Size  uint64 `json:"size"`
	Bytes uint64 `json:"bytes"`
}

// foundKey is added to the region offset of a GrantFound for its key. IDs are smaller.
const foundKey = 1 << 62

// Key orders grants: by their ids, and then those of a former mount by their place.
func (g *Grant) Key() uint64 {
	if g.State == GrantFound {
		return foundKey + uint64(g.Region)
	}
	return g.ID
}

// asksGrants returns the key that the name of an attribute asks for.
func asksGrants(name string) (from uint64, ok bool) {
	suffix, ok := strings.CutPrefix(name, GrantsXattr)
	if !ok || suffix == "" {
		return 0, ok
	}
	from, err := strconv.ParseUint(strings.TrimPrefix(suffix, "."), 10, 64)
	return from, err == nil && suffix[0] == '.'
}

// grantsValue returns the value of GrantsFrom(from). Root gets the current list, and other users
// one that is kept for a while.
func (a *Adapter) grantsValue(from uint64, uid uint32) []byte {
	var all []Grant
	if uid == 0 {
		all = a.grants(from, grantsMost+1)
	} else {
		all = a.lastGrants.Get(func() []Grant { return a.grants(0, math.MaxInt) })
		first, _ := slices.BinarySearchFunc(all, from, func(g Grant, from uint64) int { return cmp.Compare(g.Key(), from) })
		all = all[first:]
	}
	part := Grants{Grants: []Grant{}}
	if len(all) > grantsMost {
		part.Next = all[grantsMost].Key()
		all = all[:grantsMost]
	}
	part.Grants = append(part.Grants, all...)
	b, _ := json.Marshal(part)
	return b
}
