package engine

import (
	"strconv"
	"strings"
	"time"
)

// parseTime reads the since and until of logs and events: seconds since 1970 with
// up to nine decimals, or RFC 3339. The empty string and "0" are the zero time.
func parseTime(s string) (time.Time, error) {
	if s == "" || s == "0" {
		return time.Time{}, nil
	}
	if t, err := time.Parse(time.RFC3339Nano, s); err == nil {
		return t, nil
	}
	whole, frac, _ := strings.Cut(s, ".")
	sec, err := strconv.ParseInt(whole, 10, 64)
	if err != nil {
		return time.Time{}, invalid("invalid timestamp %q: want seconds since 1970 or RFC 3339", s)
	}
	var nano int64
	if frac != "" {
		frac = (frac + "000000000")[:9]
		if nano, err = strconv.ParseInt(frac, 10, 64); err != nil {
			return time.Time{}, invalid("invalid timestamp %q: want at most nine decimals", s)
		}
	}
	return time.Unix(sec, nano), nil
}

// pruneUntil reads the until of a prune filter: parseTime, or a duration before
// now such as "24h".
func pruneUntil(s string, now time.Time) (time.Time, error) {
	if d, err := time.ParseDuration(s); err == nil {
		return now.Add(-d), nil
	}
	return parseTime(s)
}
