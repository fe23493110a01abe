package main

import (
	"fmt"
	"math"
	"math/big"
	"strings"
)

// sizeFlag is a byte count on the command line: "4GiB", "512M", "1.5T", "65536".
// K, M, G, T, P and E are powers of 1024, with or without "iB".
type sizeFlag int64

func (s *sizeFlag) String() string {
	if *s == 0 {
		return ""
	}
	return formatSize(int64(*s))
}

func (s *sizeFlag) Type() string { return "SIZE" }

func (s *sizeFlag) Set(text string) error {
	n, err := parseSize(text)
	*s = sizeFlag(n)
	return err
}

const sizeUnits = "KMGTPE"

func parseSize(text string) (int64, error) {
	num, unit := text, ""
	if i := strings.IndexFunc(text, func(r rune) bool { return (r < '0' || r > '9') && r != '.' }); i >= 0 {
		num, unit = text[:i], strings.TrimSpace(text[i:])
	}
	shift := 0
	switch u := strings.ToUpper(unit); {
	case u == "" || u == "B":
	case len(u) == 1 || u[1:] == "IB":
		shift = 10 * (strings.IndexByte(sizeUnits, u[0]) + 1)
		if shift == 0 {
			return 0, fmt.Errorf("size %q: unknown unit %q, expected KiB, MiB, GiB or TiB", text, unit)
		}
	default:
		return 0, fmt.Errorf("size %q: unknown unit %q, expected KiB, MiB, GiB or TiB", text, unit)
	}
	r, ok := new(big.Rat).SetString(num)
	if !ok || strings.HasPrefix(num, ".") || r.Sign() <= 0 {
		return 0, fmt.Errorf("size %q: expected a positive number such as 512MiB or 4GiB", text)
	}
	r.Mul(r, new(big.Rat).SetInt(new(big.Int).Lsh(big.NewInt(1), uint(shift))))
	if !r.IsInt() {
		return 0, fmt.Errorf("size %q: expected a whole number of bytes", text)
	}
	if !r.Num().IsInt64() {
		return math.MaxInt64, nil // larger than any limit
	}
	return r.Num().Int64(), nil
}

// formatSize formats n bytes for people: exactly if n is a whole number of a unit, otherwise with
// two decimals, rounded down.
func formatSize(n int64) string {
	for i := len(sizeUnits) - 1; i >= 0; i-- {
		u := int64(1) << (10 * (i + 1))
		if n >= u {
			if n%u == 0 {
				return fmt.Sprintf("%d %ciB", n/u, sizeUnits[i])
			}
			return fmt.Sprintf("%.2f %ciB", math.Floor(float64(n)/float64(u)*100)/100, sizeUnits[i])
		}
	}
	return fmt.Sprintf("%d B", n)
}
