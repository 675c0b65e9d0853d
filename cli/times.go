package cli

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// timestamp reads what --since and --until take: a duration back from now, a date
// with as many parts as the user likes, or seconds. The result is seconds with
// nanoseconds, "1136073600.000000001", as the API wants it.
func timestamp(s string, now time.Time) (string, error) {
	if d, err := time.ParseDuration(s); err == nil {
		return unixTime(now.Add(-d)), nil
	}
	zone := strings.ContainsAny(s, "zZ+") || strings.Count(s, "-") == 3
	for _, layout := range []string{
		"2006-01-02T15:04:05.999999999", "2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02T15", "2006-01-02",
	} {
		var t time.Time
		var err error
		if zone {
			t, err = time.Parse(layout+"Z07:00", s)
		} else {
			t, err = time.ParseInLocation(layout, s, time.Local)
		}
		if err == nil {
			return unixTime(t), nil
		}
	}
	sec, frac, _ := strings.Cut(s, ".")
	if _, err := strconv.ParseInt(sec, 10, 64); err != nil {
		return "", fmt.Errorf("failed to parse value as time or duration: %q", s)
	}
	if frac != "" {
		if _, err := strconv.ParseInt(frac, 10, 64); err != nil {
			return "", fmt.Errorf("failed to parse value as time or duration: %q", s)
		}
	}
	return s, nil
}

func unixTime(t time.Time) string {
	return fmt.Sprintf("%d.%09d", t.Unix(), t.Nanosecond())
}
