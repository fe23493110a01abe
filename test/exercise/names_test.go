package exercise

func names(args []string) error { return nil }
