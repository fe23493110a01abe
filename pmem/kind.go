package pmem

import "fmt"

// Kind is the kind of memory that a region is in.
type Kind uint8

const (
	KindDevDax  Kind = iota // character device /dev/daxX.Y
	KindFSDax               // file on a filesystem mounted with DAX: MAP_SYNC was accepted
	KindFile                // file on an ordinary filesystem: its pages in the page cache
	KindTmpfs               // file on tmpfs or ramfs
	KindHugetlb             // file on hugetlbfs
	KindMemory              // Go's own heap, for tests
)

var kindNames = [...]string{"device-dax", "fsdax", "file", "tmpfs", "hugetlbfs", "memory"}

// String returns the name that users see.
func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return fmt.Sprintf("kind(%d)", uint8(k))
}

// Durability is the failures that a store survives once it was flushed and fenced.
type Durability uint8

const (
	// DurableFlush survives power loss. It needs Flush and Fence, or NTStore and Fence.
	DurableFlush Durability = iota
	// DurableDaemon survives the death of this process, at once and without a flush. A crash of the
	// host loses stores that Sync has not written.
	DurableDaemon
	// Volatile survives the death of this process, but no reboot (KindMemory: not even the former).
	Volatile
)

var durabilityNames = [...]string{"flush", "daemon", "volatile"}

// String returns the name that users see.
func (d Durability) String() string {
	if int(d) < len(durabilityNames) {
		return durabilityNames[d]
	}
	return fmt.Sprintf("durability(%d)", uint8(d))
}

// durability returns what a kind promises.
func (k Kind) durability() Durability {
	switch k {
	case KindDevDax, KindFSDax:
		return DurableFlush
	case KindFile:
		return DurableDaemon
	}
	return Volatile
}
