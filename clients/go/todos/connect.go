package todos

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	_ "google.golang.org/grpc/health" // Without it, healthCheckConfig does nothing.
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/dns"
	"google.golang.org/grpc/resolver/manual"

	todov1 "tidemark.dev/clients/go/gen/todo/v1"
)

// DefaultTimeout bounds a call whose context has no deadline. The service stops working
// on a call when its deadline passes.
const DefaultTimeout = 5 * time.Second

const (
	// By default gRPC resolves a name at most every 30 s. After a rollout the addresses
	// of all replicas are new, and clients must not wait that long for them.
	minResolutionInterval = 3 * time.Second
	// A replica that is frozen, or behind a dead link, closes no connection.
	keepaliveTime    = 10 * time.Second
	keepaliveTimeout = 5 * time.Second
	// gRPC's default of 120 s would outlast any restart of a replica.
	maxReconnectDelay = 2 * time.Second
)

// A copy of ../../service_config.json: Go embeds nothing from outside its module.
//
//go:embed service_config.json
var serviceConfig string

type settings struct {
	timeout time.Duration
	token   string
	tls     *tls.Config
	bearer  func(context.Context) (string, error)
	dial    []grpc.DialOption
}

// An Option changes how Connect connects.
type Option func(*settings)

// WithTimeout replaces DefaultTimeout.
func WithTimeout(timeout time.Duration) Option {
	return func(s *settings) { s.timeout = timeout }
}

// WithToken starts the session from a token of another client or process, as returned by
// Client.Token.
func WithToken(token string) Option {
	return func(s *settings) { s.token = token }
}

// WithTLS encrypts connections. TLSFiles makes a config from PEM files.
func WithTLS(config *tls.Config) Option {
	return func(s *settings) { s.tls = config }
}

// WithBearer sends an API key or a JWT with each call, as "authorization: Bearer ...".
// Use it with WithTLS: without TLS the network can read the credential.
func WithBearer(credential string) Option {
	return WithBearerSource(func(context.Context) (string, error) { return credential, nil })
}

// WithBearerSource is WithBearer for credentials that expire: source is called for each
// call and must return quickly, usually from a cache.
func WithBearerSource(source func(context.Context) (string, error)) Option {
	return func(s *settings) { s.bearer = source }
}

// WithDialOptions adds options of gRPC, such as a stats handler for traces.
func WithDialOptions(options ...grpc.DialOption) Option {
	return func(s *settings) { s.dial = append(s.dial, options...) }
}

// TLSFiles reads PEM files: the authorities that sign the service's certificate (empty:
// those of the system), and for mutual TLS the client's certificate and key (empty: none).
func TLSFiles(ca, cert, key string) (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if ca != "" {
		pem, err := os.ReadFile(ca)
		if err != nil {
			return nil, err
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("todos: %s contains no PEM certificate", ca)
		}
	}
	if cert != "" || key != "" {
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			return nil, err
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

// Connect opens a client over all replicas at these addresses: one gRPC target, which in a
// cluster is a name with all replicas (dns:///tidemark-headless:50051), or several HOST:PORT
// separated by commas. It applies the published service config: round robin, health checks,
// retries of reads. It does not wait for a connection.
//
// The client starts one session, see Client. Close releases its connections.
func Connect(addresses string, options ...Option) (*Client, error) {
	s := settings{timeout: DefaultTimeout}
	for _, option := range options {
		option(&s)
	}
	var replicas []string
	for address := range strings.SplitSeq(addresses, ",") {
		if address = strings.TrimSpace(address); address != "" {
			replicas = append(replicas, address)
		}
	}
	if len(replicas) == 0 {
		return nil, errors.New("todos: no address; want HOST:PORT, or several separated by commas")
	}
	client := &Client{timeout: s.timeout, session: &session{}}
	client.session.observe(s.token)
	dial := append(dialOptions(&s), grpc.WithChainUnaryInterceptor(client.intercept))
	target := replicas[0]
	if len(replicas) > 1 {
		target = "replicas:///todos"
		dial = append(dial, grpc.WithResolvers(resolve(replicas)))
	}
	dns.SetMinResolutionInterval(minResolutionInterval)
	connection, err := grpc.NewClient(target, append(dial, s.dial...)...)
	if err != nil {
		return nil, fmt.Errorf("todos: cannot connect to %s: %w", addresses, err)
	}
	client.connection, client.Stub = connection, todov1.NewTodoServiceClient(connection)
	return client, nil
}

func dialOptions(s *settings) []grpc.DialOption {
	transport := insecure.NewCredentials()
	if s.tls != nil {
		transport = credentials.NewTLS(s.tls)
	}
	delays := backoff.DefaultConfig
	delays.BaseDelay, delays.MaxDelay = 100*time.Millisecond, maxReconnectDelay
	options := []grpc.DialOption{
		grpc.WithTransportCredentials(transport),
		grpc.WithDefaultServiceConfig(serviceConfig),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: keepaliveTime, Timeout: keepaliveTimeout}),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: delays, MinConnectTimeout: 5 * time.Second}),
	}
	if s.bearer != nil {
		options = append(options, grpc.WithPerRPCCredentials(bearer{s.bearer}))
	}
	return options
}

// resolve lists the replicas in place of a name. Each is verified by its own host name.
func resolve(addresses []string) resolver.Builder {
	builder := manual.NewBuilderWithScheme("replicas")
	var state resolver.State
	for _, address := range addresses {
		host := address[:max(strings.LastIndexByte(address, ':'), 0)]
		one := resolver.Address{Addr: address, ServerName: strings.Trim(host, "[]")}
		state.Endpoints = append(state.Endpoints, resolver.Endpoint{Addresses: []resolver.Address{one}})
	}
	builder.InitialState(state)
	return builder
}

// bearer adds the credential to each call and each stream.
type bearer struct {
	source func(context.Context) (string, error)
}

func (b bearer) GetRequestMetadata(ctx context.Context, _ ...string) (map[string]string, error) {
	credential, err := b.source(ctx)
	if err != nil {
		return nil, err
	}
	return map[string]string{"authorization": "Bearer " + credential}, nil
}

// RequireTransportSecurity is false for services on loopback and behind a mesh.
func (bearer) RequireTransportSecurity() bool { return false }
