package refcnt_test

import (
	"fmt"

	"github.com/daxfsd/daxfsd/refcnt"
)

// A file owns a folio, a read references it, and the file is deleted meanwhile. The folio becomes
// free when the last of the two gives it up, and that caller frees the blocks.
func Example() {
	t, err := refcnt.New(1024, 9, 18) // 4 MiB in 4 KiB blocks; large folios of 2 MiB and 1 GiB
	if err != nil {
		panic(err)
	}
	defer t.Close()
	free := func(caller string) func(block, n uint64) {
		return func(block, n uint64) { fmt.Printf("%s frees %d blocks from block %d\n", caller, n, block) }
	}

	t.Own(512, 512)              // one folio of 2 MiB
	ref, ok := t.TryGet(600, 16) // any part of it: the reference is to the whole folio
	fmt.Println("order", t.Order(600), "referenced", ok, t.Refs(512))

	t.Disown(512, 512, free("unlink")) // busy: nothing is freed
	t.Put(ref, free("read"))

	_, ok = t.TryGet(600, 16) // a stale block number does no harm
	fmt.Println("referenced", ok)
	// Output:
	// order 9 referenced true 1
	// read frees 512 blocks from block 512
	// referenced false
}
