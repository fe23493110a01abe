package transport

import (
	"math"
	"math/bits"
)

// A histogram of latencies has four buckets of equal width to each power of two, as HdrHistogram
// has: from 128 ns to 34 s, each bound at most a quarter above the one below. What is
// faster is in the first bucket, what is slower in the last.
const (
	firstOctave = 7
	lastOctave  = 34
	perOctave   = 4
	nbuckets    = 1 + (lastOctave-firstOctave+1)*perOctave
)

// bucketOf is the bucket of a latency in ns.
func bucketOf(ns uint64) int {
	if ns < 1<<firstOctave {
		return 0
	}
	o := bits.Len64(ns) - 1
	return min(1+(o-firstOctave)*perOctave+int(ns>>(o-2))%perOctave, nbuckets-1)
}

// bucketBound is the upper bound of a Histogram's i-th bucket in ns, which is the lower one of the
// next.
func bucketBound(i int) uint64 {
	if i < 0 {
		return 0
	}
	return uint64(perOctave+i%perOctave) << (firstOctave - 2 + i/perOctave)
}

// BucketBounds are the upper bounds of a Histogram's buckets in ns.
func BucketBounds() []uint64 {
	b := make([]uint64, nbuckets)
	for i := range b {
		b[i] = bucketBound(i)
	}
	return b
}

// Histogram counts latencies by their buckets; see BucketBounds. What is missing at the end is 0.
type Histogram []uint64

// Count is how many latencies there are.
func (h Histogram) Count() (n uint64) {
	for _, c := range h {
		n += c
	}
	return n
}

// Quantile is the latency in ns below which the share p of all is, as if those of a bucket
// were spread over it evenly; 0 if there is none.
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

// plus is what h and o count together; minus is what h counts more than o.
func (h Histogram) plus(o Histogram) Histogram {
	sum := make(Histogram, max(len(h), len(o)))
	copy(sum, h)
	for i, c := range o {
		sum[i] += c
	}
	return sum
}

func (h Histogram) minus(o Histogram) Histogram {
	diff := append(Histogram(nil), h...)
	for i := range diff[:min(len(h), len(o))] {
		diff[i] -= min(diff[i], o[i])
	}
	return diff
}
