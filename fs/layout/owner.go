package layout

// Owner states.
const (
	OwnerClean   uint32 = 0 // unmounted cleanly; the region is unused
	OwnerMounted uint32 = 1 // in use, or its user died without unmounting
	OwnerSaved   uint32 = 2 // as OwnerClean, with a saved free map
)

// ownerDamaged is set in the state on media if damaged metadata was found while the filesystem was
// mounted. Only fsck clears it.
const ownerDamaged uint32 = 1 << 8

// Owner is the line at Superblock.OwnerOff: it names the user of the region, or locates the saved
// free map.
//
//	offset size field
//	0      8    machine id: its first 8 bytes
//	8      8    mount id: random, new with each claim
//	16     16   boot id
//	32     4    pid
//	36     4    state; 0x100: damaged
//	40     8    start time of the process (field 22 of /proc/PID/stat)
//	48     4    mount count
//
// In state OwnerSaved, instead of the machine, mount and boot ids:
//
//	0      8    free map: block of its first segment
//	8      8    length in bytes
//	16     4    crc32c of these bytes, seeded by the UUID
//	20     12   reserved, zero
type Owner struct {
	Machine [8]byte
	Mount   [8]byte
	Boot    [16]byte
	PID     uint32
	State   uint32
	Start   uint64 // clock ticks since boot
	Mounts  uint32
	Map     FreeMapRef
	Damaged bool // damaged metadata was found and is not repaired yet
}

// Put writes o into l.
func (o *Owner) Put(l *Line) {
	if o.State == OwnerSaved {
		l.put64(0, o.Map.Block)
		l.put64(8, o.Map.Len)
		l.put32(16, o.Map.CRC)
	} else {
		copy(l[PayloadOff:], o.Machine[:])
		copy(l[PayloadOff+8:], o.Mount[:])
		copy(l[PayloadOff+16:], o.Boot[:])
	}
	l.put32(32, o.PID)
	state := o.State
	if o.Damaged {
		state |= ownerDamaged
	}
	l.put32(36, state)
	l.put64(40, o.Start)
	l.put32(48, o.Mounts)
}

// Get reads o from l.
func (o *Owner) Get(l *Line) {
	*o = Owner{PID: l.u32(32), State: l.u32(36) &^ ownerDamaged, Damaged: l.u32(36)&ownerDamaged != 0, Start: l.u64(40), Mounts: l.u32(48)}
	if o.State == OwnerSaved {
		o.Map = FreeMapRef{l.u64(0), l.u64(8), l.u32(16)}
		return
	}
	copy(o.Machine[:], l[PayloadOff:])
	copy(o.Mount[:], l[PayloadOff+8:])
	copy(o.Boot[:], l[PayloadOff+16:])
}

// Beat is the line behind the owner record: the heartbeat of the region's user. The user rewrites
// the line as long as it runs; the line also identifies the inode and the pid namespace of the
// user. Its sequence is the count. It is meaningful only if its mount id equals the owner record's.
//
//	offset size field
//	0      8    mount id
//	8      8    count
//	16     8    time of this beat by the user's clock, ns since the epoch
//	24     8    st_dev of the file or device node by which the user reached the region
//	32     8    its st_ino
//	40     4    inode number of the user's pid namespace, 0: unknown
//	44     4    interval between beats in ms, 0: there are none
//	48     4    reserved, zero
type Beat struct {
	Mount    [8]byte
	Count    uint64
	Time     int64 // ns since the epoch
	Dev, Ino uint64
	PIDNS    uint32
	Interval uint32 // ms
}

// Put writes b into l.
func (b *Beat) Put(l *Line) {
	copy(l[PayloadOff:], b.Mount[:])
	l.put64(8, b.Count)
	l.put64(16, uint64(b.Time))
	l.put64(24, b.Dev)
	l.put64(32, b.Ino)
	l.put32(40, b.PIDNS)
	l.put32(44, b.Interval)
}

// Get reads b from l.
func (b *Beat) Get(l *Line) {
	*b = Beat{Count: l.u64(8), Time: int64(l.u64(16)), Dev: l.u64(24), Ino: l.u64(32), PIDNS: l.u32(40), Interval: l.u32(44)}
	copy(b.Mount[:], l[PayloadOff:])
}

// Mapped is the line behind the heartbeat. It says whether programs may map blocks of the region,
// and by which inode they take the locks that show it: locks on another device node of the same
// device are not seen. It means nothing after a reboot.
//
//	offset size field
//	0      16   boot id
//	16     8    st_dev of the file or device node
//	24     8    its st_ino
//	32     4    1: programs may map blocks; 0: none does
//	36     16   reserved, zero
type Mapped struct {
	Boot     [16]byte
	Dev, Ino uint64
	Any      bool
}

// Put writes m into l.
func (m *Mapped) Put(l *Line) {
	copy(l[PayloadOff:], m.Boot[:])
	l.put64(16, m.Dev)
	l.put64(24, m.Ino)
	if m.Any {
		l.put32(32, 1)
	}
}

// Get reads m from l.
func (m *Mapped) Get(l *Line) {
	*m = Mapped{Dev: l.u64(16), Ino: l.u64(24), Any: l.u32(32) != 0}
	copy(m.Boot[:], l[PayloadOff:])
}

// BadRange is one line of the bad-range list: a range of memory that cannot be read. No block in it
// is allocated.
//
//	offset size field
//	0      8    first block
//	8      8    length in blocks (0: unused line)
type BadRange struct{ Block, Len uint64 }

// Put writes r into l.
func (r *BadRange) Put(l *Line) { l.put64(0, r.Block); l.put64(8, r.Len) }

// Get reads r from l.
func (r *BadRange) Get(l *Line) { *r = BadRange{l.u64(0), l.u64(8)} }
