// Package metrics reads the cgroups of a container.
package metrics

import (
	"errors"

	"github.com/gantryd/gantry/shim/internal/taskapi"
)

// Read reads.
func Read(pid int) (*taskapi.Any, error) { return nil, errors.New("x") }
