package dev.tidemark.todos;

import com.google.gson.Gson;
import io.grpc.EquivalentAddressGroup;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.NameResolver;
import io.grpc.NameResolverProvider;
import io.grpc.NameResolverRegistry;
import io.grpc.StatusOr;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.Reader;
import java.net.InetSocketAddress;
import java.net.URI;
import java.nio.charset.StandardCharsets;
import java.security.Security;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;

/** One channel over all replicas, by the published service config. */
final class Channels {
  private Channels() {}

  /**
   * A single address is a gRPC target, in a cluster a name with all replicas:
   * {@code dns:///tidemark-headless:50051}.
   */
  static ManagedChannel connect(List<String> addresses) {
    // By default gRPC and the JVM cache a name for 30 s. After a rollout the addresses
    // of all replicas are new: do not wait that long for them.
    System.setProperty("networkaddress.cache.ttl", "3");
    Security.setProperty("networkaddress.cache.ttl", "3");
    String target = addresses.get(0);
    if (addresses.size() > 1) {
      NameResolverRegistry.getDefaultRegistry().register(new Replicas());
      target = Replicas.SCHEME + ":///" + String.join(",", addresses);
    }
    return Grpc.newChannelBuilder(target, InsecureChannelCredentials.create())
        .defaultServiceConfig(serviceConfig())
        .enableRetry()
        // A replica that is frozen, or behind a dead link, closes no connection.
        .keepAliveTime(10, TimeUnit.SECONDS)
        .keepAliveTimeout(5, TimeUnit.SECONDS)
        .build();
  }

  /** The service config as the channel builder wants it: maps, lists, strings and doubles. */
  private static Map<String, ?> serviceConfig() {
    try (Reader json = new InputStreamReader(
        Channels.class.getResourceAsStream("/service_config.json"), StandardCharsets.UTF_8)) {
      @SuppressWarnings("unchecked")
      Map<String, ?> config = new Gson().fromJson(json, Map.class);
      return config;
    } catch (IOException error) {
      throw new IllegalStateException("service_config.json cannot be read", error);
    }
  }

  /** Resolves {@code replicas:///HOST:PORT,HOST:PORT}: a list of replicas in place of a name. */
  private static final class Replicas extends NameResolverProvider {
    static final String SCHEME = "replicas";

    @Override
    public NameResolver newNameResolver(URI target, NameResolver.Args args) {
      return new NameResolver() {
        @Override
        public String getServiceAuthority() {
          return "todos";
        }

        @Override
        public void start(Listener2 listener) {
          List<EquivalentAddressGroup> replicas =
              List.of(target.getPath().substring(1).split(",")).stream().map(Replicas::address).toList();
          listener.onResult(
              ResolutionResult.newBuilder().setAddressesOrError(StatusOr.fromValue(replicas)).build());
        }

        @Override
        public void shutdown() {}
      };
    }

    private static EquivalentAddressGroup address(String text) {
      int colon = text.lastIndexOf(':');
      int port = Integer.parseInt(text.substring(colon + 1));
      return new EquivalentAddressGroup(new InetSocketAddress(text.substring(0, colon), port));
    }

    @Override
    protected boolean isAvailable() {
      return true;
    }

    @Override
    protected int priority() {
      return 5;
    }

    @Override
    public String getDefaultScheme() {
      return SCHEME;
    }
  }
}
