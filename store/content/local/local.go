// Package local keeps blobs in a directory with containerd's layout:
//
//	blobs/sha256/HEX
//	ingest/HEX OF SHA256 OF REF/{data,ref,startedat,updatedat,total,expected}
package local

// Store is a content store in a directory.
type Store struct {
	root string
}

// New opens, or makes, the store in root.
func New(root string) (*Store, error) { return &Store{root: root}, nil }
