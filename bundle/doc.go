// Package bundle turns an image's config and a user's wishes into the
// config.json of an OCI bundle (runtime-spec 1.3).
//
// Above it stand engine and cri, each with its own words for what a user wishes;
// Container has those wishes in the words of the runtime spec, and package docker
// below translates those of the Docker Engine API. Below it stands any OCI
// runtime, and what it gets is what a stock dockerd would write for the same
// wishes: the record in testdata says so.
//
// It must not know how a container is started, and it mounts nothing: users and
// groups are looked up in the directories of the image's layers.
package bundle
