package hugepage_test

import (
	"fmt"

	"github.com/daxfsd/daxfsd/hugepage"
)

// Large requests get aligned space. Small ones share a PMD block of 2 MiB, so that the others stay
// free.
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
	fmt.Println("free 2 MiB blocks:", a.FreePMDs())

	a.Free(first, 1)
	a.Free(second, 3) // its PMD block has no used block left: free again
	fmt.Println("free 2 MiB blocks:", a.FreePMDs())
	// Output:
	// small: 0 1
	// small: 1 3
	// large: 512 512
	// free 2 MiB blocks: 2
	// free 2 MiB blocks: 3
}
