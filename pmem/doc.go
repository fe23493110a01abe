// Package pmem opens, maps and persists a region, and is the only package that
// stores to one.
//
// # Owns
//
// The region's descriptor with its lock, its mappings, and the instructions that
// make stores durable. It never knows what the bytes mean, never decides who may
// store where, never logs, and starts no goroutine.
//
// # Types
//
//   - Region is the mapped memory: Open, Close, and everything below.
//   - Kind is where it lives: device-dax, fsdax, file, tmpfs, hugetlbfs, memory.
//   - Handle is a region that is open and locked, and not mapped: what mkfs decides by.
//   - Content is what either holds, looked at without allocating its holes.
//   - Access is who may write to a region, asked of its descriptor.
//   - Durability is what a flushed and fenced store survives there.
//   - Recorder hears of every primitive; crash tests are made of it.
//   - Range is a part of a region that the kernel knows to be poisoned.
//   - LockShared, Region.Locks and FirstLock are the locks by which programs keep what they map.
//
// Create makes the file of an emulated region; NewMemory makes one for tests.
// HostIdentity, Self, ProcessStatus and Region.Inode are the facts an owner record compares.
//
// # Two mappings
//
// The primitives store through a writable mapping that nobody else sees. Bytes gives
// slices of a PROT_READ one, so a stray store faults instead of corrupting. (KindMemory
// is one array of Go's heap: the race detector sees it, strays are not caught.) Both
// begin at a multiple of 2 MiB, or of 1 GiB if the region has as much, so that the
// kernel can use its largest pages.
//
// # Persistence
//
// A store is durable when it, then Flush of its lines, then Fence have run; NTStore
// and NTZero need only Fence. On KindFile a store has left the process at once, and
// Sync takes it to the disk; the flushes run there all the same, so that what is
// tested and measured on it is what runs on persistent memory.
//
//	arch    Flush                           NTStore            Fence
//	amd64   CLWB, CLFLUSHOPT or CLFLUSH     MOVNTDQ            SFENCE
//	arm64   DC CVAP or DC CVAC, then DSB    STNP, then a Flush DSB
//	others  nothing                         plain stores       a locked operation
//
// arm64 is tested under emulation and untested on hardware. A DC CVAC reaches only the
// point of coherency: without DC CVAP, durability is up to the platform. Where the
// third line runs (other architectures, and the build tags purego and race),
// power-loss durability on DAX is not promised.
//
// The arm64 tests run with
//
//	GOARCH=arm64 go test -exec "qemu-aarch64 -cpu cortex-a72" ./pmem
//
// since QEMU before 8.1 claims DC CVAP in user mode but takes it for an illegal
// instruction. So there it is DC CVAC that runs, and DC CVAP is only assembled.
//
// # Faults
//
// Poisoned media, and a file truncated under its mapping, raise SIGBUS. Every
// primitive, Load, LoadLine and Gather run under a guard that turns it into ErrMedia;
// the region goes on working elsewhere. A fault outside the region panics as
// always. Who loads from Bytes has no guard: use Load, or Gather.
//
// # Concurrency
//
// All methods but Close and SetRecorder may be called from any goroutine. There is
// one lock, taken only while a Recorder is installed, and no other is taken below it.
//
// A fence drains only what its own processor stored. Should a goroutine move to
// another thread between Flush and Fence, amd64 is safe, since the scheduler's locked
// instructions order the earlier write-backs, and so is arm64, where a flush ends
// with its own DSB. A Recorder is stricter: it drains by thread. So keep one step on
// one thread (runtime.LockOSThread), or use FlushFence.
//
// # Hot path
//
// LoadLine, Store, Flush, Fence and NTStore: a range check, the fault guard, one
// assembly call per 256 KiB. TestNoAllocs proves that no primitive allocates.
package pmem
