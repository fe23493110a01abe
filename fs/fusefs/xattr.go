package fusefs

import (
	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/daxfsd/daxfsd/fs"
)

// asked returns the function that computes the value of an attribute that queries the daemon, or
// nil for any other attribute. Every inode has these attributes, since a bind mount may have any as
// its root. Root gets current figures. All other users may ask as often as they like, so they get a
// value that is kept for a while (internal/kept).
func (a *Adapter) asked(name string, uid uint32) func() []byte {
	if from, ok := asksGrants(name); ok && a.grants != nil {
		return func() []byte { return a.grantsValue(from, uid) }
	}
	find, last := a.info, &a.lastInfo
	switch name {
	case InfoXattr:
	case ActivityXattr:
		find, last = a.activity, &a.lastActivity
	default:
		return nil
	}
	if find == nil || uid == 0 {
		return find
	}
	return func() []byte { return last.Get(find) }
}

// GetXAttr reads an attribute, or queries the daemon. It never returns ENOSYS, which the kernel
// would remember for all names.
func (a *Adapter) GetXAttr(cancel <-chan struct{}, h *fuse.InHeader, name string, dest []byte) (uint32, fuse.Status) {
	if f := a.asked(name, h.Uid); f != nil {
		v := f()
		if len(dest) < len(v) {
			return uint32(len(v)), fuse.ERANGE
		}
		return uint32(copy(dest, v)), fuse.OK
	}
	c := a.get(cancel, h)
	defer a.put(c)
	n, e := a.core.GetXattr(&c.ctx, h.NodeId, name, dest)
	return uint32(n), status(e)
}

// ListXAttr lists the names of attributes.
func (a *Adapter) ListXAttr(cancel <-chan struct{}, h *fuse.InHeader, dest []byte) (uint32, fuse.Status) {
	c := a.get(cancel, h)
	defer a.put(c)
	n, e := a.core.ListXattr(&c.ctx, h.NodeId, dest)
	return uint32(n), status(e)
}

// SetXAttr sets an attribute.
func (a *Adapter) SetXAttr(cancel <-chan struct{}, in *fuse.SetXAttrIn, name string, data []byte) fuse.Status {
	if uint64(in.Size) > uint64(len(data)) {
		return fuse.EINVAL
	}
	c := a.get(cancel, &in.InHeader)
	defer a.put(c)
	flags := in.Flags
	if flags&^(fs.XattrCreate|fs.XattrReplace) != 0 {
		return fuse.EINVAL
	}
	if in.SetXAttrFlags&fuse.SETXATTR_ACL_KILL_SGID != 0 {
		flags |= fs.XattrKillSGID
	}
	return status(a.core.SetXattr(&c.ctx, in.NodeId, name, data[:in.Size], flags))
}

// RemoveXAttr removes an attribute.
func (a *Adapter) RemoveXAttr(cancel <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	c := a.get(cancel, h)
	defer a.put(c)
	return status(a.core.RemoveXattr(&c.ctx, h.NodeId, name))
}
