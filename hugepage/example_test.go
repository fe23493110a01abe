package hugepage_test

import (
	"fmt"

	"github.com/daxfsd/daxfsd/hugepage"
)

// Large requests get aligned space. Small ones share a block of 2 MiB, so that the others stay
// whole.
func Example() {
	a, err := hugepage.NewAllocator(4*512, hugepage.DefaultOrders) // 8 MiB
	if err != nil {
		panic(err)
	}
	first, n, _ := a.Alloc(0, 1)
	fmt.Println("small:", first, n)
	second, n, _ := a.Alloc(0, 3)
	fmt.Println("small:", second, n)
	large, n, _ := a.Alloc(0, 512)
	fmt.Println("large:", large, n)
	fmt.Println("whole 2 MiB blocks left:", a.WholeFree2M())

	a.Free(first, 1)
	a.Free(second, 3) // the last one of its 2 MiB: whole again
	fmt.Println("whole 2 MiB blocks left:", a.WholeFree2M())
	// Output:
	// small: 0 1
	// small: 1 3
	// large: 512 512
	// whole 2 MiB blocks left: 2
	// whole 2 MiB blocks left: 3
}
