package main

import (
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"golang.org/x/sys/unix"

	"github.com/daxfsd/daxfsd/fs/transport"
)

// tracer returns a function that logs one line for each request (-o trace), or nil.
func tracer(o *mountOptions, log *zap.Logger) func(*transport.Request) {
	if !o.trace {
		return nil
	}
	return func(r *transport.Request) { log.Info("request", zap.Inline((*tracedRequest)(r))) }
}

// tracedRequest encodes a request as fields of the log.
type tracedRequest transport.Request

func (r *tracedRequest) MarshalLogObject(e zapcore.ObjectEncoder) error {
	e.AddString("op", r.Op)
	e.AddUint64("unique", r.Unique)
	e.AddUint64("nodeid", r.NodeID)
	e.AddUint32("pid", r.PID)
	if r.Name != "" {
		e.AddString("name", r.Name)
	}
	if r.NewName != "" {
		e.AddString("new_name", r.NewName)
	}
	if r.Ranged {
		e.AddUint64("offset", r.Offset)
		e.AddUint64("size", r.Size)
	}
	result := "ok"
	if r.Error != 0 {
		if result = unix.ErrnoName(r.Error); result == "" {
			result = r.Error.Error()
		}
	}
	e.AddString("result", result)
	if r.Moved > 0 {
		e.AddUint64("bytes", r.Moved)
	}
	e.AddFloat64("us", float64(r.Took.Nanoseconds())/1e3)
	return nil
}
