package direct

import "sync/atomic"

// mappings counts the areas of addresses that the windows of this process take. The kernel allows
// 65 530 (vm.max_map_count), of which the program needs some.
var mappings, budget atomic.Int64

func init() { budget.Store(DefaultBudget) }

// DefaultBudget is the number of areas of addresses that ReadAt and WriteAt may use in a process.
const DefaultBudget = 16384

// SetBudget limits how many areas of addresses ReadAt and WriteAt may use in this process from now
// on, and returns the former limit. A file needs about two for each of its extents. Beyond the
// limit they go the normal way. Mappings do not count.
func SetBudget(areas int) (former int) { return int(budget.Swap(int64(areas))) }

// reserve counts n areas, unless there are too many.
func reserve(n int) bool {
	if mappings.Add(int64(n)) <= budget.Load() {
		return true
	}
	mappings.Add(-int64(n))
	return false
}
