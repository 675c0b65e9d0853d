// Package metadata keeps what containerd keeps in meta.db: namespaces,
// containers, images and leases, the namespaced views of the content store and
// the snapshotters, and the garbage collection over all of them. The database
// has containerd's own schema, so that either daemon can open the other's:
//
//	v1/version                                     varint, the schema's minor version
//	v1/NAMESPACE/labels/KEY
//	v1/NAMESPACE/images/NAME/                      createdat updatedat labels/ target/{digest,mediatype,size,annotations/}
//	v1/NAMESPACE/containers/ID/                    createdat updatedat labels/ spec image snapshotter snapshotKey sandboxid runtime/{name,options} extensions/
//	v1/NAMESPACE/snapshots/SNAPSHOTTER/KEY/        createdat updatedat labels/ name parent children/
//	v1/NAMESPACE/content/blob/DIGEST/              createdat updatedat labels/ size
//	v1/NAMESPACE/content/ingests/REF/              ref expireat expected
//	v1/NAMESPACE/sandboxes/ID/                     createdat updatedat labels/ spec sandboxer runtime/{name,options} extensions/
//	v1/NAMESPACE/leases/ID/                        createdat labels/ snapshots/SNAPSHOTTER/KEY content/DIGEST images/NAME ingests/REF
//
// A change is on disk when its function returns. Labels of blobs and snapshots
// live here; the stores below know only names that are unique over namespaces.
package metadata
