package hugepage

import "testing"

// TestReservation checks that a reservation keeps other requests out of its block, until it stops
// growing or space is short.
func TestReservation(t *testing.T) {
	a := newAllocator(t, 256, tiny, [2]uint64{0, 8}, [2]uint64{64, 48}) // PMD 8, PUD 64
	base, n, ok := a.Reservation(tiny.PMD, 3, 2)
	if !ok || base != 112 || n != 2 {
		t.Fatalf("reservation at %d, %d blocks, %t: want one in the fullest PUD block", base, n, ok)
	}
	if block, _, _ := a.Alloc(0, 1); block/8 == base/8 {
		t.Errorf("a request got block %d, in the reservation", block)
	}
	if n := a.Extend(base+5, 20, tiny.PMD); n != 3 { // up to 120, which Alloc took
		t.Errorf("the reservation grew by %d blocks, want 3", n)
	}
	if n := a.Extend(base+5, 1, tiny.PMD); n != 0 {
		t.Errorf("%d blocks allocated twice", n)
	}
	// The beginning of the reservation is free, and other requests do not get it until it is stale.
	for range StaleAfter - 5 {
		if block, _, _ := a.Alloc(0, 1); block >= base && block < base+3 {
			t.Fatalf("a request got block %d, in the reservation", block)
		} else {
			a.Free(block, 1)
		}
	}
	for range 2 * StaleAfter {
		block, _, _ := a.Alloc(0, 1)
		a.Free(block, 1)
	}
	if got := a.reservations.n; got != 0 {
		t.Errorf("%d reservations are left", got)
	}
}

func TestReservationEvicted(t *testing.T) {
	a := newAllocator(t, 64, tiny)
	if _, n, ok := a.Reservation(tiny.PUD, 16, 4); !ok || n != 4 {
		t.Fatal(n, ok)
	}
	if _, _, ok := a.Reservation(tiny.PUD, 0, 1); ok {
		t.Error("one PUD block is two reservations")
	}
	got := uint64(0)
	for {
		_, n, ok := a.Alloc(0, 3)
		if !ok {
			break
		}
		got += n
	}
	if got != 60 {
		t.Errorf("%d of 60 blocks were allocated", got)
	}
}

func TestReservationPUD(t *testing.T) {
	a := newAllocator(t, 256, tiny, [2]uint64{0, 8}, [2]uint64{64, 33}, [2]uint64{128, 64}, [2]uint64{200, 8})
	for i, want := range []uint64{0, 192} {
		base, n, ok := a.Reservation(tiny.PUD, 8, 8)
		if !ok || base != want || n != 8*uint64(1-i) {
			t.Errorf("reservation %d: at %d, %d blocks, %t", i, base, n, ok)
		}
	}
	if base, _, ok := a.Reservation(tiny.PUD, 8, 8); ok {
		t.Errorf("a PUD block less than half free is a reservation: %d", base)
	}
}
