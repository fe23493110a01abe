package pmem

import "fmt"

// Kind is where a region lives.
type Kind uint8

const (
	KindDevDax  Kind = iota // character device /dev/daxX.Y
	KindFSDax               // file on a filesystem mounted with DAX: MAP_SYNC was accepted
	KindFile                // file on an ordinary filesystem: the page cache
	KindTmpfs               // file on tmpfs or ramfs
	KindHugetlb             // file on hugetlbfs
	KindMemory              // Go's own heap, for tests
)

var kindNames = [...]string{"device-dax", "fsdax", "file", "tmpfs", "hugetlbfs", "memory"}

// String gives the name that users see.
func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return fmt.Sprintf("kind(%d)", uint8(k))
}

// Durability is what a store has survived once it was flushed and fenced.
type Durability uint8

const (
	// DurableFlush: power loss. Needs Flush and Fence, or NTStore and Fence.
	DurableFlush Durability = iota
	// DurableDaemon: this process's death, at once and without a flush. A crash
	// of the host loses what Sync has not written.
	DurableDaemon
	// Volatile: this process's death, but never a reboot (KindMemory: not even
	// the first).
	Volatile
)

var durabilityNames = [...]string{"flush", "daemon", "volatile"}

// String gives the name that users see.
func (d Durability) String() string {
	if int(d) < len(durabilityNames) {
		return durabilityNames[d]
	}
	return fmt.Sprintf("durability(%d)", uint8(d))
}

// durability tells what a kind promises.
func (k Kind) durability() Durability {
	switch k {
	case KindDevDax, KindFSDax:
		return DurableFlush
	case KindFile:
		return DurableDaemon
	}
	return Volatile
}
