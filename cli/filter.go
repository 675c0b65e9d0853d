package cli

import (
	"encoding/json"
	"errors"
	"net/url"
	"strings"

	"github.com/spf13/cobra"

	"github.com/gantryd/gantry/cli/internal/option"
)

// filters are the values of --filter, in the API's form.
type filters map[string]map[string]bool

// filterFlag adds --filter.
func filterFlag(cmd *cobra.Command, f *filters, short, usage string) {
	v := option.Func{Word: "filter", Read: f.add}
	cmd.Flags().VarP(v, "filter", short, usage)
}

func (f *filters) add(s string) error {
	key, value, ok := strings.Cut(s, "=")
	if !ok {
		return errors.New("bad format of filter (expected name=value)")
	}
	f.set(strings.ToLower(strings.TrimSpace(key)), strings.TrimSpace(value))
	return nil
}

func (f *filters) set(key, value string) {
	if *f == nil {
		*f = filters{}
	}
	if (*f)[key] == nil {
		(*f)[key] = map[string]bool{}
	}
	(*f)[key][value] = true
}

// clone is a copy that can be added to.
func (f filters) clone() filters {
	var c filters
	for k, values := range f {
		for v := range values {
			c.set(k, v)
		}
	}
	return c
}

// into adds the filters to a query.
func (f filters) into(q url.Values) error {
	if len(f) == 0 {
		return nil
	}
	raw, err := json.Marshal(f)
	if err != nil {
		return err
	}
	q.Set("filters", string(raw))
	return nil
}
