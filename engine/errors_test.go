package engine

import (
	"errors"
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
)

func TestAnErrorIsOneLineWithTheStatusOfItsKind(t *testing.T) {
	for _, c := range []struct {
		name string
		err  error
		code int
		text string
	}{
		{"a kind of ours", notFound("No such container: x"), 404, "No such container: x"},
		{"a kind from below is not said twice", fmt.Errorf("join: %w", errdefs.ErrInvalidArgument), 400, "join"},
		{"a kind replaces that of its cause, whose words stay", conflict("busy: %w", errdefs.ErrNotFound), 409, "busy: not found"},
		{"a kind that came over gRPC, on a line of its own", errors.Join(errors.New("reach registry: refused"), errdefs.ErrUnavailable), 503, "reach registry: refused"},
		{"as often as it came over gRPC", errors.Join(errors.New("unpack: no space left"), errdefs.ErrResourceExhausted, errdefs.ErrResourceExhausted), 500, "unpack: no space left"},
		{"no kind", errors.New("broken"), 500, "broken"},
		{"two lines become one", errors.Join(invalid("a"), errors.New("b")), 400, "a; b"},
		{"what is not there", because(errdefs.ErrNotImplemented, "no"), 501, "no"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := httptest.NewRecorder()
			replyError(w, c.err)
			want := `{"message":"` + c.text + `"}`
			if got := strings.TrimSpace(w.Body.String()); w.Code != c.code || got != want {
				t.Errorf("got %d %s, want %d %s", w.Code, got, c.code, want)
			}
		})
	}
	w := httptest.NewRecorder()
	replyError(w, because(errdefs.ErrNotModified, "already"))
	if w.Code != 304 || w.Body.Len() != 0 {
		t.Errorf("not modified: %d %q", w.Code, w.Body)
	}
}
