package direct_test

import (
	"fmt"
	"os"

	"github.com/daxfsd/daxfsd/direct"
)

// Reading by copying: like os.File, without system calls.
func ExampleFile_ReadAt() {
	f, err := os.Open("/mnt/weights")
	must(err)
	d, err := direct.Open(f)
	must(err) // says what is missing: f itself can be read all the same
	defer d.Close()
	f.Close()
	b := make([]byte, 4096)
	_, err = d.ReadAt(b, 1<<20)
	must(err)
}

// Mapping a whole file in large pages.
func ExampleFile_Map() {
	f, err := os.Open("/mnt/weights")
	must(err)
	d, err := direct.Open(f)
	must(err)
	defer d.Close()
	size, err := d.Size()
	must(err)
	m, err := d.Map(0, size, direct.MapOptions{PageSize: 1 << 30})
	must(err)
	defer m.Close()
	for _, p := range m.PageSizes() {
		fmt.Printf("%d bytes in pages of %d\n", p.Length, p.PageSize)
	}
	use(m.Bytes())
}

// Storing to a new file, and making it durable.
func ExampleMapping_Flush() {
	f, err := os.Create("/mnt/table")
	must(err)
	d, err := direct.Open(f)
	must(err)
	defer d.Close()
	must(d.Grow(64 << 20))
	m, err := d.Map(0, 64<<20, direct.MapOptions{Write: true, PageSize: 2 << 20})
	must(err)
	defer m.Close()
	n := copy(m.Bytes(), "durable when Flush returns")
	must(m.Flush(0, int64(n)))
}

func use([]byte) {}

func must(err error) {
	if err != nil {
		panic(err)
	}
}
