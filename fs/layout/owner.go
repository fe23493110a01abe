package layout

// Owner states.
const (
	OwnerClean   uint32 = 0 // unmounted cleanly; nobody uses the region
	OwnerMounted uint32 = 1 // in use, or its user died
)

// Owner is the line at Superblock.OwnerOff: who uses the region.
//
//	offset size field
//	0      16   machine id
//	16     16   boot id
//	32     4    pid
//	36     4    state
//	40     8    start time of the process (field 22 of /proc/PID/stat)
//	48     4    mount count
type Owner struct {
	Machine, Boot [16]byte
	PID           uint32
	State         uint32
	Start         uint64
	Mounts        uint32
}

// Put writes o into l.
func (o *Owner) Put(l *Line) {
	copy(l[PayloadOff:], o.Machine[:])
	copy(l[PayloadOff+16:], o.Boot[:])
	l.put32(32, o.PID)
	l.put32(36, o.State)
	l.put64(40, o.Start)
	l.put32(48, o.Mounts)
}

// Get reads o from l.
func (o *Owner) Get(l *Line) {
	*o = Owner{PID: l.u32(32), State: l.u32(36), Start: l.u64(40), Mounts: l.u32(48)}
	copy(o.Machine[:], l[PayloadOff:])
	copy(o.Boot[:], l[PayloadOff+16:])
}

// BadRange is one line of the bad-range list: media that must not be allocated.
//
//	offset size field
//	0      8    first block
//	8      8    length in blocks (0: unused line)
type BadRange struct{ Block, Len uint64 }

// Put writes r into l.
func (r *BadRange) Put(l *Line) { l.put64(0, r.Block); l.put64(8, r.Len) }

// Get reads r from l.
func (r *BadRange) Get(l *Line) { *r = BadRange{l.u64(0), l.u64(8)} }
