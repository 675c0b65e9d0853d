package engine

import (
	"encoding/json"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/moby/moby/api/types/jsonstream"
	"github.com/opencontainers/go-digest"

	"github.com/gantryd/gantry/store/image"
)

// messages is an answer that goes on while the work does: one JSON object after
// the other. It begins with the first; an error before that is an ordinary one.
type messages struct {
	mu    sync.Mutex
	w     http.ResponseWriter
	begun bool
}

// message is what is sent; error repeats errorDetail for clients that look there.
type message struct {
	jsonstream.Message
	Err string `json:"error,omitempty"`
}

func (m *messages) send(msg jsonstream.Message) { m.write(message{Message: msg}) }

func (m *messages) write(msg any) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.begun {
		m.begun = true
		m.w.Header().Set("Content-Type", "application/json")
		m.w.WriteHeader(http.StatusOK)
	}
	if json.NewEncoder(m.w).Encode(msg) == nil {
		http.NewResponseController(m.w).Flush()
	}
}

// aux sends what a program wants to know.
func (m *messages) aux(v any) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return err
	}
	m.send(jsonstream.Message{Aux: (*json.RawMessage)(&raw)})
	return nil
}

// end gives err to the client in the form that the answer has by now.
func (m *messages) end(err error) error {
	if err == nil {
		return nil
	}
	m.mu.Lock()
	begun := m.begun
	m.mu.Unlock()
	if !begun {
		return err
	}
	text := plainText(err)
	m.write(message{Message: jsonstream.Message{Error: &jsonstream.Error{Message: text}}, Err: text})
	return errStreamed
}

// progressEvery is the least time between two numbers for one layer.
const progressEvery = 100 * time.Millisecond

// layerBars tells the progress of layers in the words that the docker CLI draws.
type layerBars struct {
	out   *messages
	words map[image.Phase]string
	first func() // is called before the first layer is told of
	bars  map[digest.Digest]*bar
}

type bar struct {
	phase image.Phase
	told  time.Time
}

// The words of a pull and of a push.
func pullWords() map[image.Phase]string {
	return map[image.Phase]string{
		image.Waiting:     "Pulling fs layer",
		image.Downloading: "Downloading",
		image.Extracting:  "Extracting",
		image.Exists:      "Already exists",
		image.Done:        "Pull complete",
	}
}

func pushWords() map[image.Phase]string {
	return map[image.Phase]string{
		image.Waiting:   "Preparing",
		image.Uploading: "Pushing",
		image.Exists:    "Layer already exists",
		image.Done:      "Pushed",
	}
}

// tell takes one step. What is no layer (index, manifest, config) is small, and
// is not told of.
func (l *layerBars) tell(p image.Progress) {
	if p.Phase == image.Resolving || p.Desc.Digest == "" {
		return
	}
	if l.first != nil {
		l.first()
		l.first = nil
	}
	word := l.words[p.Phase]
	if !isLayer(p.Desc.MediaType) || word == "" {
		return
	}
	b, seen := l.bars[p.Desc.Digest]
	if !seen {
		b = &bar{}
		if l.bars == nil {
			l.bars = map[digest.Digest]*bar{}
		}
		l.bars[p.Desc.Digest] = b
	}
	if b.phase == image.Done || b.phase == image.Exists {
		return
	}
	id := short(p.Desc.Digest)
	if !seen && p.Phase != image.Waiting && p.Phase != image.Exists {
		l.out.send(jsonstream.Message{ID: id, Status: l.words[image.Waiting], Progress: &jsonstream.Progress{}})
	}
	changed := b.phase != p.Phase
	if changed && b.phase == image.Downloading {
		l.out.send(jsonstream.Message{ID: id, Status: "Download complete", Progress: &jsonstream.Progress{}})
	}
	b.phase = p.Phase
	counts := p.Phase == image.Downloading || p.Phase == image.Extracting || p.Phase == image.Uploading
	if counts && !changed && time.Since(b.told) < progressEvery {
		return
	}
	b.told = time.Now()
	msg := jsonstream.Message{ID: id, Status: word, Progress: &jsonstream.Progress{}}
	if counts {
		msg.Progress.Current, msg.Progress.Total = p.Offset, p.Total
	}
	l.out.send(msg)
}

// isLayer knows the media types of OCI and Docker.
func isLayer(mediaType string) bool {
	return strings.Contains(mediaType, ".layer.") || strings.Contains(mediaType, ".rootfs.")
}

// short is the digest as people see it.
func short(d digest.Digest) string {
	hex := d.Encoded()
	return hex[:min(12, len(hex))]
}
