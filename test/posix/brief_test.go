package posix

// briefCases are those of -brief.
var briefCases = map[string]bool{}
