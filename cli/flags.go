package cli

import (
	"maps"
	"slices"

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

func sortedKeys[V any](m map[string]V) []string {
	return slices.Sorted(maps.Keys(m))
}
