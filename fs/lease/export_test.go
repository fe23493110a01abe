package lease

// SetLastID makes the next grant get the id after last, or the next free one.
func (t *Table) SetLastID(last uint64) { t.lastID, t.freeIDs = last, 0 }
