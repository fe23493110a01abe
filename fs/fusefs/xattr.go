package fusefs

import (
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/daxfs/daxfs/fs"
	"github.com/daxfs/daxfs/fs/layout"
)

// InfoXattr is the extended attribute of the root directory whose value is an
// Info as JSON: how a program asks the daemon behind a mount point.
const InfoXattr = "system.daxfs.info"

// Info is what the daemon tells about a mount. Fields are only ever added.
type Info struct {
	Version    string    `json:"version"` // of the daemon
	PID        int       `json:"pid"`
	Since      time.Time `json:"since"`
	Mountpoint string    `json:"mountpoint"`
	Options    []string  `json:"options"`

	Region     string    `json:"region"`
	Kind       string    `json:"kind"`
	RegionSize int64     `json:"region_size"` // bytes
	Align      int64     `json:"align"`       // bytes
	Durability string    `json:"durability"`
	Promise    string    `json:"promise"`
	Size       int64     `json:"size"` // bytes
	Label      string    `json:"label"`
	UUID       string    `json:"uuid"`
	Format     uint32    `json:"format"`
	Created    time.Time `json:"created"`

	fs.Stats
}

// GetXAttr reads an attribute, or InfoXattr. No refusal is ENOSYS, which the kernel would
// remember for all names.
func (a *Adapter) GetXAttr(cancel <-chan struct{}, h *fuse.InHeader, name string, dest []byte) (uint32, fuse.Status) {
	if name == InfoXattr && h.NodeId == layout.RootIno && a.info != nil {
		v := a.info()
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
