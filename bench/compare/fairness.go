package main

import "fmt"

// The load of row load/fairness.
const (
	clients        = 64
	filesPerClient = 16
)

// fairness runs many clients with all their files open, and records the rate of the slowest client
// as a ratio of the mean.
func (m *measurement) fairness(t *contender, c *cell) error {
	var o *fioOutput
	err := t.watch(m.ctx, c, func() (err error) {
		o, err = m.fio(m.ctx, "fairness", map[string]string{
			"DIR": t.dir, "CLIENTS": fmt.Sprint(clients), "FILES": fmt.Sprint(filesPerClient),
			// Longer than in other rows, so that each client gets its turns.
			"RUNTIME": fmt.Sprintf("%dms", 4*m.conf.Runtime.Milliseconds()),
		})
		return err
	})
	if err != nil {
		return err
	}
	if len(o.Jobs) != clients {
		return fmt.Errorf("%d clients reported of %d", len(o.Jobs), clients)
	}
	var sum, slowest float64
	for i, j := range o.Jobs {
		rate := j.Read.IOPS + j.Write.IOPS
		sum += rate
		if i == 0 || rate < slowest {
			slowest = rate
		}
	}
	if sum == 0 {
		return fmt.Errorf("no client did anything")
	}
	c.add("ratio", slowest*clients/sum)
	c.add("ops/s", sum)
	if t.served() {
		b, err := t.anonymous()
		if err != nil {
			return err
		}
		c.add("anon_MiB", b/(1<<20))
	}
	return nil
}
