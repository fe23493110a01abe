// Package pmem opens, maps and persists a region. It is the only package that stores to a region.
//
// # Owns
//
// The region's descriptor with its lock, its mappings, and the instructions that make stores
// durable. It never interprets the bytes, never decides who may store where, never logs, and starts
// no goroutine.
//
// # Types
//
//   - Region is the mapped memory: Open, Close, and everything below.
//   - Kind is the kind of memory: device-dax, fsdax, file, tmpfs, hugetlbfs, memory.
//   - Handle is a region that is open and locked but not mapped. mkfs decides by it.
//   - Content is the bytes of a Region or a Handle, read without allocating holes.
//   - Access is the users who may write to a region, read from its descriptor.
//   - Durability is the failures that a flushed and fenced store survives.
//   - Recorder is called after every primitive; crash tests use it.
//   - Range is a part of a region that the kernel knows to be poisoned.
//   - Mapper and Window are a region that another process has mounted, and parts of it that are
//     mapped through one open file description. Programs use them; the daemon does not.
//   - LockShared, Region.Locks and FirstLock are the locks by which programs keep the memory that
//     they map.
//
// Create makes the file of an emulated region; NewMemory makes a region for tests. HostIdentity,
// Self, ProcessStatus and Region.Inode are the facts that an owner record compares.
//
// # Two mappings
//
// The primitives store through a writable mapping that no other code sees. Bytes gives slices of a
// PROT_READ mapping, so a stray store faults instead of corrupting. (KindMemory is one array of
// Go's heap: the race detector sees it, but stray stores are not caught.) Both mappings begin at a
// multiple of 2 MiB, or of 1 GiB if the region is at least that large, so that the kernel can use
// its largest pages.
//
// # Persistence
//
// A store is durable when it, then Flush of its lines, then Fence have run. NTStore and NTZero need
// only Fence. On KindFile, a store survives the death of the process at once, and Sync writes it to
// the disk. The flushes run there all the same, so that tests and measurements there run the code
// of persistent memory.
//
//	arch    Flush                           NTStore            Fence
//	amd64   CLWB, CLFLUSHOPT or CLFLUSH     MOVNTDQ            SFENCE
//	arm64   DC CVAP or DC CVAC, then DSB    STNP, then a Flush DSB
//	others  nothing                         plain stores       a locked operation
//
// arm64 is tested under emulation and untested on hardware. A DC CVAC reaches only the point of
// coherency: without DC CVAP, durability is up to the platform. Builds that use the third line
// (other architectures, and the build tags purego and race) do not promise durability after a power
// loss on DAX.
//
// The arm64 tests run with
//
//	GOARCH=arm64 go test -exec "qemu-aarch64 -cpu cortex-a72" ./pmem
//
// since QEMU before 8.1 reports DC CVAP in user mode, but treats it as an illegal instruction. With
// that CPU model the tests run DC CVAC, and DC CVAP is only assembled.
//
// # Faults
//
// Poisoned media, and a file truncated while it is mapped, raise SIGBUS. Every primitive of a
// Region or a Window, Load, LoadLine and Gather run under a guard that turns it into ErrMedia; the
// rest of the region goes on working. A fault outside the region panics as always. Loads from Bytes
// have no guard: use Load or Gather for one.
//
// # Concurrency
//
// All methods but Close and SetRecorder may be called from any goroutine. There is one lock, taken
// only while a Recorder is installed. No other lock is taken with it held.
//
// A fence drains only the stores of its own processor. If a goroutine moves to another thread
// between Flush and Fence, amd64 is safe, since the scheduler's locked instructions order the
// earlier write-backs. arm64 is safe too, since a flush ends with its own DSB. A Recorder is
// stricter: it drains by thread. So keep the flushes and the fence of one step on one thread
// (runtime.LockOSThread), or use FlushFence.
//
// # Hot path
//
// LoadLine, Store, Flush, Fence and NTStore: a range check, the fault guard, one
// assembly call per 256 KiB. TestNoAllocs proves that no primitive allocates.
package pmem
