package engine

import (
	"context"
	"errors"
	"net/http"
	"path/filepath"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	eventsapi "github.com/moby/moby/api/types/events"
	volumeapi "github.com/moby/moby/api/types/volume"

	"github.com/gantryd/gantry/volume"
)

// volumes is the noun over package volume: who uses one, containers know.
type volumes struct {
	store      *volume.Store
	events     *events
	containers *containers
}

// anonymousLabel marks volumes whose names nobody chose.
const anonymousLabel = "com.docker.volume.anonymous"

func newVolumes(cfg Config, ev *events, cs *containers) (*volumes, error) {
	store, err := volume.Open(filepath.Join(cfg.Root, "volumes"), filepath.Join(cfg.State, "volumes"))
	if err != nil {
		return nil, err
	}
	if err := store.Sweep(); err != nil {
		cfg.Log.Warn("sweep volumes", "err", err)
	}
	return &volumes{store: store, events: ev, containers: cs}, nil
}

func (v *volumes) routes() []route {
	return []route{
		{http.MethodGet, "/volumes", v.getList},
		{http.MethodPost, "/volumes/create", v.postCreate},
		{http.MethodPost, "/volumes/prune", v.postPrune},
		{http.MethodGet, "/volumes/{name}", v.getInspect},
		{http.MethodPut, "/volumes/{name}", v.putUpdate},
		{http.MethodDelete, "/volumes/{name}", v.delete},
	}
}

// ensure finds the volume or makes it. New also says of a volume that was there
// that it is vacant: an image's content goes into it too.
func (v *volumes) ensure(_ context.Context, use volumeUse) (mountedVolume, error) {
	vol, _, err := v.create(volume.Volume{Name: use.Name, Driver: use.Driver, Options: use.Options, Labels: use.Labels})
	if err != nil {
		return mountedVolume{}, err
	}
	vacant, err := v.store.Vacant(vol.Name)
	return mountedVolume{Name: vol.Name, Driver: vol.Driver, Path: vol.Path, New: vacant}, err
}

// has says whether there is a volume of that name.
func (v *volumes) has(name string) bool {
	_, err := v.store.Volume(name)
	return err == nil
}

func (v *volumes) create(w volume.Volume) (volume.Volume, bool, error) {
	if w.Name == "" {
		w = w.Clone()
		set(&w.Labels, anonymousLabel, "")
	}
	vol, made, err := v.store.Create(w)
	if made {
		v.tell(eventsapi.ActionCreate, vol)
	}
	return vol, made, err
}

func (v *volumes) tell(action eventsapi.Action, vol volume.Volume) {
	v.events.publish(eventsapi.VolumeEventType, action, vol.Name, map[string]string{"driver": vol.Driver})
}

// mount makes the content of a volume visible at path for the container id.
func (v *volumes) mount(_ context.Context, name, id string) (path string, err error) {
	return v.store.Mount(name, id)
}

func (v *volumes) unmount(_ context.Context, name, id string) error {
	err := v.store.Unmount(name, id)
	if errdefs.IsNotFound(err) {
		return nil
	}
	return err
}

// removeAnonymous removes those of names that are anonymous and unused.
func (v *volumes) removeAnonymous(_ context.Context, names []string) error {
	var errs error
	for _, name := range names {
		vol, err := v.store.Volume(name)
		if err != nil || !isAnonymous(vol) || len(v.containers.usingVolume(name)) > 0 {
			continue
		}
		if err := v.store.Remove(name); err != nil && !errdefs.IsNotFound(err) {
			errs = errors.Join(errs, err)
			continue
		}
		v.tell(eventsapi.ActionDestroy, vol)
	}
	return errs
}

func isAnonymous(vol volume.Volume) bool {
	_, labelled := vol.Labels[anonymousLabel]
	return vol.Anonymous || labelled
}

// shown is vol as the API has it.
func shown(vol volume.Volume) volumeapi.Volume {
	return volumeapi.Volume{
		CreatedAt: vol.Created.UTC().Format(time.RFC3339), Driver: vol.Driver, Labels: vol.Labels,
		Mountpoint: vol.Path, Name: vol.Name, Options: vol.Options, Scope: "local",
	}
}

// getList is GET /volumes.
func (v *volumes) getList(w http.ResponseWriter, r *http.Request) error {
	f, err := parseFilters(r, "dangling", "driver", "label", "label!", "name")
	if err != nil {
		return err
	}
	dangling, err := f.truth("dangling", false)
	if err != nil {
		return err
	}
	all, err := v.store.List()
	if err != nil {
		return err
	}
	out := volumeapi.ListResponse{Volumes: []volumeapi.Volume{}, Warnings: []string{}}
	for _, vol := range all {
		switch {
		case f.has("dangling") && dangling != (len(v.containers.usingVolume(vol.Name)) == 0):
		case !f.exact("driver", vol.Driver) || !nameContains(f, vol.Name):
		case !f.labels("label", vol.Labels) || !f.notLabels("label!", vol.Labels):
		default:
			out.Volumes = append(out.Volumes, shown(vol))
		}
	}
	return replyJSON(w, http.StatusOK, out)
}

// nameContains passes names that hold a value of the filter "name".
func nameContains(f filters, name string) bool {
	return f.anyOf("name", []string{name}, strings.Contains)
}

// postCreate is POST /volumes/create.
func (v *volumes) postCreate(w http.ResponseWriter, r *http.Request) error {
	var req volumeapi.CreateRequest
	if err := readJSON(r, &req); err != nil {
		return err
	}
	if req.ClusterVolumeSpec != nil {
		return notSwarmManager()
	}
	vol, _, err := v.create(volume.Volume{Name: req.Name, Driver: req.Driver, Options: req.DriverOpts, Labels: req.Labels})
	if err != nil {
		return err
	}
	return replyJSON(w, http.StatusCreated, shown(vol))
}

// getInspect is GET /volumes/{name}.
func (v *volumes) getInspect(w http.ResponseWriter, r *http.Request) error {
	vol, err := v.store.Volume(r.PathValue("name"))
	if err != nil {
		return err
	}
	return replyJSON(w, http.StatusOK, shown(vol))
}

// putUpdate is PUT /volumes/{name}, which is for volumes of a cluster.
func (v *volumes) putUpdate(http.ResponseWriter, *http.Request) error { return notSwarmManager() }

// delete is DELETE /volumes/{name}. With force, a volume that is not there is
// gone as wished.
func (v *volumes) delete(w http.ResponseWriter, r *http.Request) error {
	name := r.PathValue("name")
	vol, err := v.store.Volume(name)
	if err == nil {
		if users := v.containers.usingVolume(name); len(users) > 0 {
			ids := make([]string, len(users))
			for k, u := range users {
				ids[k] = u.ID
			}
			return conflict("remove %s: volume is in use - [%s]", name, strings.Join(ids, ", "))
		}
		err = v.store.Remove(name)
	}
	if errdefs.IsNotFound(err) && boolValue(r, "force") {
		err = nil
	} else if err == nil {
		v.tell(eventsapi.ActionDestroy, vol)
	}
	if err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// postPrune is POST /volumes/prune: unused anonymous volumes, and with all=true,
// or before API 1.42, the named ones too.
func (v *volumes) postPrune(w http.ResponseWriter, r *http.Request) error {
	f, err := parseFilters(r, "all", "label", "label!")
	if err != nil {
		return err
	}
	named, err := f.truth("all", minor(r) < 42)
	if err != nil {
		return err
	}
	all, err := v.store.List()
	if err != nil {
		return err
	}
	report := volumeapi.PruneReport{VolumesDeleted: []string{}}
	for _, vol := range all {
		if !named && !isAnonymous(vol) || len(v.containers.usingVolume(vol.Name)) > 0 ||
			!f.labels("label", vol.Labels) || !f.notLabels("label!", vol.Labels) {
			continue
		}
		size, err := v.store.Size(r.Context(), vol.Name)
		if err == nil {
			err = v.store.Remove(vol.Name)
		}
		if err != nil {
			continue // it went, or came into use, while we looked
		}
		v.tell(eventsapi.ActionDestroy, vol)
		report.VolumesDeleted = append(report.VolumesDeleted, vol.Name)
		report.SpaceReclaimed += uint64(size)
	}
	v.events.publish(eventsapi.VolumeEventType, eventsapi.ActionPrune, "", map[string]string{"reclaimed": itoa(int64(report.SpaceReclaimed))})
	return replyJSON(w, http.StatusOK, report)
}

// usage is what system/df tells of volumes.
func (v *volumes) usage(ctx context.Context) ([]volumeapi.Volume, error) {
	all, err := v.store.List()
	if err != nil {
		return nil, err
	}
	out := []volumeapi.Volume{}
	for _, vol := range all {
		row := shown(vol)
		size, err := v.store.Size(ctx, vol.Name)
		if err != nil {
			continue
		}
		row.UsageData = &volumeapi.UsageData{RefCount: int64(len(v.containers.usingVolume(vol.Name))), Size: size}
		out = append(out, row)
	}
	return out, nil
}
