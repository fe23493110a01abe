package posix

// briefCases are those of -brief: some of each file, of those that take few calls.
var briefCases = map[string]bool{
	"rename/loops": true,
}
