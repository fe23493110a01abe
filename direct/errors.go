package direct

import (
	"errors"

	"github.com/daxfsd/daxfsd/direct/protocol"
)

// Errors of Open, Map and Pin. They are wrapped in sentences that name the object and say what to
// do; test with errors.Is.
var (
	// ErrNotDaxfsd: the file is on no daxfsd mount, or on one that knows no grants.
	ErrNotDaxfsd = errors.New("direct: not a file of a daxfsd mount")
	// ErrVersion: the daemon speaks another version of the protocol.
	ErrVersion = protocol.ErrVersion
	// ErrRefused: the mount makes no such grants of this file. Reading and writing it works.
	ErrRefused = errors.New("direct: the mount grants no mapping of this file")
	// ErrRegion: the region cannot be opened or mapped by this process.
	ErrRegion = errors.New("direct: the region is not accessible")
	// ErrRange: the range is not in the file, or it has holes and is to be written.
	ErrRange = errors.New("direct: not a range of the file")
	// ErrLayout: the blocks of the range cannot be mapped next to each other.
	ErrLayout = errors.New("direct: the layout of the file does not allow the mapping")
	// ErrBudget: this process, or all processes that map the region, have as much mapped as they
	// may have.
	ErrBudget = errors.New("direct: too much is mapped")
	// ErrChanging: the layout of the file changed again and again meanwhile.
	ErrChanging = errors.New("direct: the file is being changed all the time")
)
