package pmem

import "runtime"

// flushFaults tells whether flushing memory that is not there faults. The emulator of
// arm64 takes a clean for a no-operation.
var flushFaults = runtime.GOARCH != "arm64" || flushName() == "none"
