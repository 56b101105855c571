"""One channel over all replicas, by the published service config."""

from pathlib import Path

import grpc

SERVICE_CONFIG = Path(__file__).parent.parent / "service_config.json"


def connect(addresses: list[str]) -> grpc.Channel:
    """A single address is a gRPC target, in a cluster a name with all replicas:
    dns:///tidemark-headless:50051."""
    target = addresses[0] if len(addresses) == 1 else "ipv4:" + ",".join(addresses)
    return grpc.insecure_channel(
        target,
        options=[
            ("grpc.service_config", SERVICE_CONFIG.read_text()),
            # Else it would be made of all addresses, which is none by HTTP/2.
            *([] if len(addresses) == 1 else [("grpc.default_authority", "todos")]),
            # A replica that is frozen, or behind a dead link, closes no connection.
            ("grpc.keepalive_time_ms", 10_000),
            ("grpc.keepalive_timeout_ms", 5_000),
            # By default gRPC resolves a name at most every 30 s. After a rollout the
            # addresses of all replicas are new: do not wait that long for them.
            ("grpc.dns_min_time_between_resolutions_ms", 3_000),
            # Coming back is the watch's own business: see mirror.py.
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 2_000),
        ],
    )
