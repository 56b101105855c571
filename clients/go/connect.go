package main

import (
	_ "embed"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	_ "google.golang.org/grpc/health" // Without it, healthCheckConfig does nothing.
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/dns"
	"google.golang.org/grpc/resolver/manual"
)

// A copy of ../service_config.json: Go embeds nothing from outside its module.
//
//go:embed service_config.json
var serviceConfig string

// connect makes one channel over all replicas. A single address is a gRPC
// target, in a cluster a name with all replicas: dns:///tidemark-headless:50051.
func connect(addresses []string) (*grpc.ClientConn, error) {
	// By default gRPC resolves a name at most every 30 s. After a rollout the
	// addresses of all replicas are new: do not wait that long for them.
	dns.SetMinResolutionInterval(3 * time.Second)
	options := []grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultServiceConfig(serviceConfig),
		// A replica that is frozen, or behind a dead link, closes no connection.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 5 * time.Second}),
	}
	if len(addresses) == 1 {
		return grpc.NewClient(addresses[0], options...)
	}
	replicas := manual.NewBuilderWithScheme("replicas")
	var state resolver.State
	for _, address := range addresses {
		state.Endpoints = append(state.Endpoints, resolver.Endpoint{Addresses: []resolver.Address{{Addr: address}}})
	}
	replicas.InitialState(state)
	return grpc.NewClient("replicas:///todos", append(options, grpc.WithResolvers(replicas))...)
}
