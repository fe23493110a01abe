package pmem_test

import (
	"fmt"

	"github.com/daxfsd/daxfsd/pmem"
)

// Primitives store to a region, and Bytes reads it. An ordinary store is durable after Flush and
// Fence, a non-temporal one after Fence.
func Example() {
	r, err := pmem.NewMemory(1 << 20) // pmem.Open maps a device or a file
	if err != nil {
		panic(err)
	}
	defer r.Close()

	if err := r.NTStore(4096, []byte("data before the word that names it")); err != nil {
		panic(err)
	}
	r.Fence() // the data is durable
	if err := r.Store8(0, 4096); err != nil {
		panic(err)
	}
	if err := r.FlushFence(0, 8); err != nil { // the word is durable
		panic(err)
	}

	fmt.Printf("%s, %d KiB\n", r.Kind(), r.Size()>>10)
	fmt.Printf("%s\n", r.Bytes(4096, 34))
	// Output:
	// memory, 1024 KiB
	// data before the word that names it
}

// A range outside the region is refused, with the bounds of the region.
func ExampleRegion_Store() {
	r, err := pmem.NewMemory(1 << 20)
	if err != nil {
		panic(err)
	}
	defer r.Close()
	fmt.Println(r.Store(1<<20, []byte("too far")))
	// Output:
	// pmem: Store of 7 bytes at offset 1048576: outside the region of 1048576 bytes, or misaligned
}
