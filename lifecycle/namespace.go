package lifecycle

import (
	"context"

	api "github.com/containerd/containerd/api/services/namespaces/v1"
	"google.golang.org/protobuf/types/known/emptypb"

	meta "github.com/gantryd/gantry/lifecycle/internal/metadata"
)

// namespaces is containerd.services.namespaces.v1.Namespaces.
type namespaces struct {
	api.UnimplementedNamespacesServer
	db *meta.DB
}

func (n *namespaces) Get(_ context.Context, r *api.GetNamespaceRequest) (*api.GetNamespaceResponse, error) {
	ns, err := n.db.Namespaces().Get(r.Name)
	return &api.GetNamespaceResponse{Namespace: ns}, err
}

func (n *namespaces) List(context.Context, *api.ListNamespacesRequest) (*api.ListNamespacesResponse, error) {
	all, err := n.db.Namespaces().List()
	return &api.ListNamespacesResponse{Namespaces: all}, err
}

func (n *namespaces) Create(_ context.Context, r *api.CreateNamespaceRequest) (*api.CreateNamespaceResponse, error) {
	return &api.CreateNamespaceResponse{Namespace: r.Namespace}, n.db.Namespaces().Create(r.Namespace)
}

func (n *namespaces) Update(_ context.Context, r *api.UpdateNamespaceRequest) (*api.UpdateNamespaceResponse, error) {
	ns, err := n.db.Namespaces().Update(r.Namespace, r.UpdateMask.GetPaths())
	return &api.UpdateNamespaceResponse{Namespace: ns}, err
}

func (n *namespaces) Delete(_ context.Context, r *api.DeleteNamespaceRequest) (*emptypb.Empty, error) {
	return &emptypb.Empty{}, n.db.Namespaces().Delete(r.Name)
}
