package transport

import (
	"math"
	"math/bits"
)

// A histogram of latencies has four buckets of equal width per power of two, as in HdrHistogram.
// They cover 128 ns to 34 s, and each bound is at most a quarter above the previous one. Shorter
// latencies are counted in the first bucket, longer ones in the last.
const (
	firstOctave = 7
	lastOctave  = 34
	perOctave   = 4
	nbuckets    = 1 + (lastOctave-firstOctave+1)*perOctave
)

// bucketOf returns the index of the bucket for a latency in ns.
func bucketOf(ns uint64) int {
	if ns < 1<<firstOctave {
		return 0
	}
	o := bits.Len64(ns) - 1
	return min(1+(o-firstOctave)*perOctave+int(ns>>(o-2))%perOctave, nbuckets-1)
}

// bucketBound returns the upper bound in ns of bucket i, which is also the lower bound of the next.
// For i < 0 it returns 0.
func bucketBound(i int) uint64 {
	if i < 0 {
		return 0
	}
	return uint64(perOctave+i%perOctave) << (firstOctave - 2 + i/perOctave)
}

// BucketBounds returns the upper bounds in ns of a Histogram's buckets.
func BucketBounds() []uint64 {
	b := make([]uint64, nbuckets)
	for i := range b {
		b[i] = bucketBound(i)
	}
	return b
}

// Histogram counts latencies by bucket; see BucketBounds. Buckets beyond its length are 0.
type Histogram []uint64

// Count returns the number of latencies in h.
func (h Histogram) Count() (n uint64) {
	for _, c := range h {
		n += c
	}
	return n
}

// Quantile returns the latency in ns below which the share p of all latencies lies. It assumes that
// the latencies within a bucket are evenly spread. It returns 0 for an empty histogram.
func (h Histogram) Quantile(p float64) uint64 {
	rank := max(1, uint64(math.Ceil(p*float64(h.Count()))))
	for i, c := range h {
		if c >= rank {
			from := bucketBound(i - 1)
			return from + uint64(float64(bucketBound(i)-from)*float64(rank)/float64(c))
		}
		rank -= c
	}
	return 0
}

// plus returns the sum of two histograms.
func (h Histogram) plus(o Histogram) Histogram {
	sum := make(Histogram, max(len(h), len(o)))
	copy(sum, h)
	for i, c := range o {
		sum[i] += c
	}
	return sum
}

// minus returns the latencies that h counts beyond those of o.
func (h Histogram) minus(o Histogram) Histogram {
	diff := append(Histogram(nil), h...)
	for i := range diff[:min(len(h), len(o))] {
		diff[i] -= min(diff[i], o[i])
	}
	return diff
}
