package cli

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

const formatUsage = `Format output using a custom template:
'json':             Print in JSON format
'TEMPLATE':         Print output using the given
Go template.`

const listFormatUsage = `Format output using a custom template:
'table':            Print output in table format
with column headers (default)
'table TEMPLATE':   Print output in table format
using the given Go template
'json':             Print in JSON format
'TEMPLATE':         Print output using the given
Go template.`

// formatFlag adds --format of a command that prints one thing.
func formatFlag(cmd *cobra.Command, to *string) {
	cmd.Flags().StringVarP(to, "format", "f", "", formatUsage)
}

// sortByName sorts as people do: web2 before web10.
func sortByName[T any](list []T, name func(T) string) {
	slices.SortStableFunc(list, func(a, b T) int { return natural(name(a), name(b)) })
}

// natural compares runs of digits by their value and the rest by bytes.
func natural(a, b string) int {
	for a != "" && b != "" {
		n, m := digits(a), digits(b)
		if n > 0 && m > 0 {
			x, y := strings.TrimLeft(a[:n], "0"), strings.TrimLeft(b[:m], "0")
			if c := cmp.Or(len(x)-len(y), cmp.Compare(x, y)); c != 0 {
				return c
			}
			a, b = a[n:], b[m:]
			continue
		}
		if a[0] != b[0] {
			return cmp.Compare(a[0], b[0])
		}
		a, b = a[1:], b[1:]
	}
	return len(a) - len(b)
}

// digits is the length of the run of digits that s begins with.
func digits(s string) int {
	n := 0
	for n < len(s) && s[n] >= '0' && s[n] <= '9' {
		n++
	}
	return n
}

func sortedKeys[V any](m map[string]V) []string {
	return slices.Sorted(maps.Keys(m))
}
