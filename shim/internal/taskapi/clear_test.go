package taskapi_test

import (
	"reflect"

	"github.com/gantryd/gantry/internal/wire"
)

// clearMessage sets *m to its zero value.
func clearMessage(m wire.Message) { reflect.ValueOf(m).Elem().SetZero() }
