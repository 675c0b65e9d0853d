package engine

import (
	"context"
	"net/http"
	"slices"

	imagesapi "github.com/containerd/containerd/api/services/images/v1"
	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	eventsapi "github.com/moby/moby/api/types/events"
	imageapi "github.com/moby/moby/api/types/image"
	"github.com/opencontainers/go-digest"

	"github.com/gantryd/gantry/store/image"
)

// postTag is POST /images/{name}/tag.
func (i *images) postTag(w http.ResponseWriter, r *http.Request) error {
	img, err := i.find(r.Context(), r.PathValue("name"))
	if err != nil {
		return err
	}
	repo, err := reference.ParseNormalizedNamed(r.FormValue("repo"))
	if err != nil {
		return invalid("invalid reference format: %q: %w", r.FormValue("repo"), err)
	}
	named, err := withTag(repo, r.FormValue("tag"))
	if err != nil {
		return err
	}
	if _, ok := named.(reference.Digested); ok {
		return invalid("refusing to create a tag with a digest reference")
	}
	named = reference.TagNameOnly(named)
	if err := i.name(r.Context(), named.String(), img.Target); err != nil {
		return err
	}
	i.tell(eventsapi.ActionTag, img.Target.Digest.String(), reference.FamiliarString(named), nil)
	w.WriteHeader(http.StatusCreated)
	return nil
}

// delete is DELETE /images/{name}.
func (i *images) delete(w http.ResponseWriter, r *http.Request) error {
	gone, err := i.remove(r.Context(), r.PathValue("name"), boolValue(r, "force"))
	if err != nil {
		return err
	}
	return replyJSON(w, http.StatusOK, gone)
}

// remove takes the name ref off its image, and the image away with its last
// name. An ID stands for all names, which all go if they are of one repository,
// or by force.
//
// What uses the image stops it only from losing its last name.
func (i *images) remove(ctx context.Context, ref string, force bool) ([]imageapi.DeleteResponse, error) {
	i.naming.Lock()
	defer i.naming.Unlock()
	img, err := i.find(ctx, ref)
	if err != nil {
		return nil, err
	}
	id := img.Target.Digest
	names, err := i.named(ctx, id)
	if err != nil {
		return nil, err
	}
	names = slices.DeleteFunc(names, func(n image.Image) bool { return isDangling(n.Name) && len(names) > 1 })
	users := i.containers.usingImage(id)
	if byName(ref, img.Name) {
		if len(names) > 1 {
			return i.untag(ctx, []image.Image{img})
		}
		if len(users) > 0 && !force {
			return nil, conflict("conflict: unable to remove repository reference %q (must force) - container %s is using its referenced image %s", ref, users[0].ID[:12], short(id))
		}
		if len(users) > 0 {
			return i.untagUsed(ctx, names)
		}
		return i.erase(ctx, id, names)
	}
	for _, u := range users {
		if u.Running {
			return nil, conflict("conflict: unable to delete %s (cannot be forced) - image is being used by running container %s", short(id), u.ID[:12])
		}
	}
	if !force {
		if repositories(names) > 1 {
			return nil, conflict("conflict: unable to delete %s (must be forced) - image is referenced in multiple repositories", short(id))
		}
		if len(users) > 0 {
			return nil, conflict("conflict: unable to delete %s (must be forced) - image is being used by stopped container %s", short(id), users[0].ID[:12])
		}
	}
	return i.erase(ctx, id, names)
}

// byName says whether ref is a name of the image that it found, and not its ID.
func byName(ref, name string) bool {
	named, err := reference.ParseNormalizedNamed(ref)
	return err == nil && reference.TagNameOnly(named).String() == name
}

func repositories(names []image.Image) int {
	repos := map[string]bool{}
	for _, n := range names {
		if named, err := reference.ParseNormalizedNamed(n.Name); err == nil {
			repos[named.Name()] = true
		}
	}
	return len(repos)
}

// untag takes names off, of an image that has others.
func (i *images) untag(ctx context.Context, names []image.Image) ([]imageapi.DeleteResponse, error) {
	var gone []imageapi.DeleteResponse
	for _, n := range names {
		if err := i.stores.Images.Delete(ctx, n.Name); err != nil && !errdefs.IsNotFound(err) {
			return gone, err
		}
		gone = append(gone, i.toldUntagged(n))
	}
	return gone, nil
}

func (i *images) toldUntagged(n image.Image) imageapi.DeleteResponse {
	name := n.Name
	if named, err := reference.ParseNormalizedNamed(n.Name); err == nil {
		name = reference.FamiliarString(named)
	}
	i.tell(eventsapi.ActionUnTag, n.Target.Digest.String(), name, nil)
	return imageapi.DeleteResponse{Untagged: name}
}

// untagUsed takes the names off an image that must stay, since containers use it.
func (i *images) untagUsed(ctx context.Context, names []image.Image) ([]imageapi.DeleteResponse, error) {
	target := names[0].Target
	_, err := i.stores.Images.Create(ctx, image.Image{Name: danglingPrefix + target.Digest.String(), Target: target})
	if err != nil && !errdefs.IsAlreadyExists(err) {
		return nil, err
	}
	return i.untag(ctx, names)
}

// erase deletes the image with all its names, and waits until its space is free.
func (i *images) erase(ctx context.Context, id digest.Digest, names []image.Image) ([]imageapi.DeleteResponse, error) {
	var gone []imageapi.DeleteResponse
	for k, n := range names {
		_, err := i.ctrd.Images.Delete(ctx, &imagesapi.DeleteImageRequest{Name: n.Name, Sync: k == len(names)-1})
		if err != nil && !errdefs.IsNotFound(err) {
			return gone, err
		}
		if !isDangling(n.Name) {
			gone = append(gone, i.toldUntagged(n))
		}
	}
	if err := i.dropUnnamed(ctx, id); err != nil {
		return gone, err
	}
	i.tell(eventsapi.ActionDelete, id.String(), id.String(), nil)
	return append(gone, imageapi.DeleteResponse{Deleted: id.String()}), nil
}

// postPrune is POST /images/prune: without a filter, images without a name; with
// dangling=false all that no container uses.
func (i *images) postPrune(w http.ResponseWriter, r *http.Request) error {
	f, err := parseFilters(r, "dangling", "label", "label!", "until")
	if err != nil {
		return err
	}
	onlyDangling, err := f.truth("dangling", true)
	if err != nil {
		return err
	}
	delete(f, "dangling")
	ctx := r.Context()
	all, err := i.all(ctx)
	if err != nil {
		return err
	}
	kept, err := i.filter(ctx, all, f)
	if err != nil {
		return err
	}
	report := imageapi.PruneReport{ImagesDeleted: []imageapi.DeleteResponse{}}
	for _, h := range kept {
		tags, _ := h.tags()
		if onlyDangling && len(tags) > 0 || len(i.containers.usingImage(h.target.Digest)) > 0 {
			continue
		}
		size := i.size(ctx, h.loaded) - i.sharedSize(ctx, h, all)
		i.naming.Lock()
		gone, err := i.erase(ctx, h.target.Digest, h.names)
		i.naming.Unlock()
		report.ImagesDeleted = append(report.ImagesDeleted, gone...)
		if err != nil {
			return err
		}
		report.SpaceReclaimed += uint64(size)
	}
	i.events.publish(eventsapi.ImageEventType, eventsapi.ActionPrune, "", map[string]string{"reclaimed": itoa(int64(report.SpaceReclaimed))})
	return replyJSON(w, http.StatusOK, report)
}
