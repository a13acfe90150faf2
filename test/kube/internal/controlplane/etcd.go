package controlplane

import (
	"context"
	"errors"
	"fmt"
	"net/url"

	"go.etcd.io/etcd/server/v3/embed"
)

// Etcd listens on Unix sockets in the state directory, so that nobody but this user can reach it. Etcd insists on host:port
// in the addresses it tells others, and takes that for the name of the socket.
const (
	etcdClientURL = "unix://etcd-client:0"
	etcdPeerURL   = "unix://etcd-peer:0"
)

// startEtcd starts a cluster of one member in the working directory and waits until it serves. The caller stops its Server.
func startEtcd(ctx context.Context, logFile string) (*embed.Etcd, error) {
	client, err := url.Parse(etcdClientURL)
	if err != nil {
		return nil, fmt.Errorf("etcd: %w", err)
	}
	peer, err := url.Parse(etcdPeerURL)
	if err != nil {
		return nil, fmt.Errorf("etcd: %w", err)
	}
	c := embed.NewConfig()
	c.Dir = "etcd"
	c.ListenClientUrls, c.AdvertiseClientUrls = []url.URL{*client}, []url.URL{*client}
	c.ListenPeerUrls, c.AdvertisePeerUrls = []url.URL{*peer}, []url.URL{*peer}
	c.InitialCluster = c.InitialClusterFromName(c.Name)
	c.UnsafeNoFsync = true
	c.EnableGRPCGateway = false
	c.WarningUnaryRequestDuration = embed.DefaultWarningUnaryRequestDuration // unset, every request is one
	c.LogLevel = "warn"
	c.LogOutputs = []string{logFile}
	e, err := embed.StartEtcd(c)
	if err != nil {
		return nil, fmt.Errorf("etcd: %w", err)
	}
	select {
	case <-e.Server.ReadyNotify():
		return e, nil
	case err := <-e.Err():
		return nil, fmt.Errorf("etcd: %w", err)
	case <-ctx.Done():
		e.Server.Stop()
		return nil, fmt.Errorf("etcd: %w", context.Cause(ctx))
	}
}

// watchEtcd returns the error that ends etcd, or nil when ctx ends first.
func watchEtcd(ctx context.Context, e *embed.Etcd) error {
	select {
	case <-ctx.Done():
		return nil
	case err := <-e.Err():
		return fmt.Errorf("etcd: %w", err)
	case <-e.Server.StopNotify():
		return errors.New("etcd stopped by itself")
	}
}
