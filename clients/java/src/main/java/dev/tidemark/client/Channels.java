package dev.tidemark.client;

import com.google.gson.Gson;
import io.grpc.ChannelCredentials;
import io.grpc.EquivalentAddressGroup;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.ManagedChannelBuilder;
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
import java.util.stream.Stream;

/** One channel over all replicas, by the published service config. */
final class Channels {
  /**
   * By default gRPC and the JVM keep a name's addresses for 30 s. After a rollout the addresses of
   * all replicas are new, and clients must not wait that long for them.
   */
  private static final String NAME_SECONDS = "3";

  static {
    String property = "networkaddress.cache.ttl";
    if (System.getProperty(property) == null && Security.getProperty(property) == null) {
      System.setProperty(property, NAME_SECONDS);
      Security.setProperty(property, NAME_SECONDS);
    }
    NameResolverRegistry.getDefaultRegistry().register(new Replicas());
  }

  private Channels() {}

  static List<String> split(String addresses) {
    List<String> found =
        Stream.of(addresses.split(",")).map(String::strip).filter(one -> !one.isEmpty()).toList();
    if (found.isEmpty()) {
      throw new IllegalArgumentException("no address; want HOST:PORT, or several separated by commas");
    }
    return found;
  }

  static ManagedChannel connect(List<String> addresses, ChannelCredentials credentials) {
    boolean isOne = addresses.size() == 1;
    String target = isOne ? addresses.get(0) : Replicas.SCHEME + ":///" + String.join(",", addresses);
    ManagedChannelBuilder<?> builder =
        Grpc.newChannelBuilder(target, credentials)
            .defaultServiceConfig(serviceConfig())
            .enableRetry()
            // A replica that is frozen, or behind a dead link, closes no connection.
            .keepAliveTime(10, TimeUnit.SECONDS)
            .keepAliveTimeout(5, TimeUnit.SECONDS);
    if (!isOne && !(credentials instanceof InsecureChannelCredentials)) {
      // The name that the certificates of all must have.
      builder.overrideAuthority(Replicas.address(addresses.get(0)).getHostString());
    }
    return builder.build();
  }

  /** The service config as the channel builder wants it: maps, lists, strings and doubles. */
  private static Map<String, ?> serviceConfig() {
    try (Reader json =
        new InputStreamReader(
            Channels.class.getResourceAsStream("/dev/tidemark/client/service_config.json"),
            StandardCharsets.UTF_8)) {
      @SuppressWarnings("unchecked")
      Map<String, ?> config = new Gson().fromJson(json, Map.class);
      return config;
    } catch (IOException error) {
      throw new IllegalStateException("service_config.json cannot be read", error);
    }
  }

  /** Resolves {@code tidemark:///HOST:PORT,HOST:PORT}: a list of replicas in place of a name. */
  private static final class Replicas extends NameResolverProvider {
    static final String SCHEME = "tidemark";

    @Override
    public NameResolver newNameResolver(URI target, NameResolver.Args args) {
      if (!SCHEME.equals(target.getScheme())) {
        return null;
      }
      return new NameResolver() {
        @Override
        public String getServiceAuthority() {
          return "todos";
        }

        @Override
        public void start(Listener2 listener) {
          List<EquivalentAddressGroup> replicas =
              Stream.of(target.getPath().substring(1).split(","))
                  .map(one -> new EquivalentAddressGroup(address(one)))
                  .toList();
          listener.onResult(
              ResolutionResult.newBuilder().setAddressesOrError(StatusOr.fromValue(replicas)).build());
        }

        @Override
        public void shutdown() {}
      };
    }

    static InetSocketAddress address(String text) {
      int colon = text.lastIndexOf(':');
      if (colon < 1) {
        throw new IllegalArgumentException("\"" + text + "\" is not HOST:PORT");
      }
      int port = Integer.parseInt(text.substring(colon + 1));
      return new InetSocketAddress(text.substring(0, colon), port);
    }

    @Override
    protected boolean isAvailable() {
      return true;
    }

    /** Below that of DNS: it is for its own scheme only. */
    @Override
    protected int priority() {
      return 1;
    }

    @Override
    public String getDefaultScheme() {
      return SCHEME;
    }
  }
}
