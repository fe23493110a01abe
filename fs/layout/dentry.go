package layout

// A directory is a file of metadata blocks. A dentry is one head line and, for names longer than
// HeadName bytes, up to five continuation lines that follow it in the same block. A continuation
// line counts only behind its head; anywhere else it is free.
//
//	head    offset size field
//	        0      1    DentryHead
//	        1      1    file type (DT_* of dirent.h)
//	        2      1    name length, 1..255
//	        3      1    reserved
//	        4      8    inode number
//	        12     40   name, first part
//	cont    0      1    DentryCont
//	        1      51   name, next part
const (
	DentryFree = 0
	DentryHead = 1
	DentryCont = 2

	HeadName = 40
	ContName = 51
	NameMax  = 255
	// MaxDentryLines is the number of lines of the longest dentry.
	MaxDentryLines = 1 + (NameMax-HeadName+ContName-1)/ContName
)

// DentryLines returns the number of lines for a name of n bytes.
func DentryLines(n int) int {
	if n <= HeadName {
		return 1
	}
	return 1 + (n-HeadName+ContName-1)/ContName
}

// DentryKind returns DentryFree, DentryHead or DentryCont, or another value if the line is
// malformed.
func (l *Line) DentryKind() uint8 { return l.u8(0) }

// DentryIno returns the inode number in a head line.
func (l *Line) DentryIno() uint64 { return l.u64(4) }

// DentryType returns the DT_* type in a head line.
func (l *Line) DentryType() uint8 { return l.u8(1) }

// DentryNameLen returns the length of the name in bytes, from a head line.
func (l *Line) DentryNameLen() int { return int(l.u8(2)) }

// SetDentryTarget changes the inode number and the DT_* type in a head line.
func (l *Line) SetDentryTarget(ino uint64, typ uint8) {
	l.put64(4, ino)
	l.put8(1, typ)
}

// PutDentryHead makes l the head line of a dentry. typ is a DT_* type.
func (l *Line) PutDentryHead(name []byte, ino uint64, typ uint8) {
	clear(l.Payload())
	l.put8(0, DentryHead)
	l.put8(1, typ)
	l.put8(2, uint8(len(name)))
	l.put64(4, ino)
	copy(l[PayloadOff+12:PayloadOff+PayloadSize], name)
}

// PutDentryCont makes l continuation line i (from 1) of a dentry. name is the whole name.
func (l *Line) PutDentryCont(name []byte, i int) {
	clear(l.Payload())
	l.put8(0, DentryCont)
	if from := HeadName + (i-1)*ContName; from < len(name) {
		copy(l[PayloadOff+1:PayloadOff+PayloadSize], name[from:])
	}
}

// ClearDentry makes l a free line.
func (l *Line) ClearDentry() { clear(l.Payload()) }

// NamePart returns the part of a name that line i of a dentry holds. Line 0 is the head; nameLen is
// the length of the whole name in bytes.
func (l *Line) NamePart(i, nameLen int) []byte {
	if i == 0 {
		return l[PayloadOff+12 : PayloadOff+12+min(nameLen, HeadName)]
	}
	n := min(nameLen-HeadName-(i-1)*ContName, ContName)
	return l[PayloadOff+1 : PayloadOff+1+n]
}
