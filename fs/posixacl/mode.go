package posixacl

import "slices"

// permBits are the permission bits of a mode.
const permBits = 0o777

// minimal reports whether a mode's permission bits express the whole list. It is analogous to the
// kernel's posix_acl_equiv_mode.
func (l List) minimal() bool { return len(l) == 3 }

// perm returns the permission bits of the mode of a file with the list.
func (l List) perm() uint16 {
	return l.get(tagUserObj).perm<<6 | l.class().perm<<3 | l.get(tagOther).perm
}

// withMode returns a copy of the list with the permissions of a mode. It is analogous to the
// kernel's __posix_acl_chmod.
func (l List) withMode(mode uint16) List {
	l = slices.Clone(l)
	l.get(tagUserObj).perm = mode >> 6 & 7
	l.class().perm = mode >> 3 & 7
	l.get(tagOther).perm = mode & 7
	return l
}

// kept returns the list, or nil if a mode's permission bits express it.
func (l List) kept() List {
	if l.minimal() {
		return nil
	}
	return l
}

// SetMode returns the mode of a file whose access list becomes l, and the list to store with it:
// nil if the mode expresses the whole list. It is analogous to the kernel's posix_acl_update_mode,
// but never clears set-group-ID.
//
// Precondition: l is not nil.
func (l List) SetMode(mode uint16) (newMode uint16, kept List) {
	return mode&^permBits | l.perm(), l.kept()
}

// Chmod returns the access list of a file with list l whose mode becomes mode. changed is false if
// l is nil or already has the permissions of that mode.
func (l List) Chmod(mode uint16) (list List, changed bool) {
	if l == nil || l.perm() == mode&permBits {
		return l, false
	}
	return l.withMode(mode), true
}

// Inherit returns the mode, the access list and, for a directory, the default list of an inode that
// is created with mode in a directory with the default list l. The inode gets the permissions that
// both mode and l grant. It is analogous to the kernel's posix_acl_create.
//
// Precondition: l is not nil.
func (l List) Inherit(mode uint16, isDir bool) (newMode uint16, access, def List) {
	a := l.withMode(mode & l.perm())
	if isDir {
		def = l
	}
	return mode&^permBits | a.perm(), a.kept(), def
}
