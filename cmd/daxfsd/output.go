package main

import (
	"encoding/json"
	"os"
	"strings"

	"github.com/spf13/cobra"
)

// output is standard output. It remembers the first error, so that commands need not check each
// print. It is used by one goroutine.
type output struct {
	f    *os.File
	used bool
	err  error
}

// Write writes unless an earlier write has failed.
func (o *output) Write(b []byte) (n int, err error) {
	o.used = true
	if o.err == nil {
		n, o.err = o.f.Write(b)
	}
	return n, o.err
}

// close closes the file and returns the first error. Some filesystems, such as NFS, report a write
// error only when the file is closed.
func (o *output) close() error {
	if err := o.f.Close(); o.used && o.err == nil {
		o.err = err
	}
	return o.err
}

// printJSON prints v for scripts. The output remembers an error.
func printJSON(c *cobra.Command, v any) {
	encoder := json.NewEncoder(c.OutOrStdout())
	encoder.SetIndent("", "  ")
	_ = encoder.Encode(v)
}

// helpCommand is cobra's help command, except that an unknown topic is an error.
func helpCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "help [command]",
		Short: "Help about any command",
		RunE: func(c *cobra.Command, topic []string) error {
			found, rest, err := c.Root().Find(topic)
			if err != nil || len(rest) > 0 {
				return usagef("there is no command %q; see `daxfsd --help`", strings.Join(topic, " "))
			}
			found.InitDefaultHelpFlag()
			return found.Help()
		},
	}
}
