# A static binary in an image that otherwise contains only certificate authorities and a
# user: no shell, no package manager, no libc.
#   docker build -t tidemark:0.1.0 --build-arg BUILD_REVISION=$(git rev-parse --short=12 HEAD) .
#   docker run -p 50051:50051 -p 9464:9464 -v tidemark:/data tidemark:0.1.0
# The second line runs it with the embedded store, which the volume keeps.

# Alpine's compiler links musl statically. ring (in rustls) and mimalloc contain C
# code: build-base has `make` and `gcc`.
FROM rust:1.95.0-alpine AS build
RUN apk add --no-cache build-base
WORKDIR /src
COPY . .
# The commit, for the metric `tidemark_build_info`.
ARG BUILD_REVISION=unknown
# The cache mounts are not part of the image.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --profile dist --locked \
    && cp target/dist/tidemark /tidemark \
    && size=$(stat -c %s /tidemark) \
    # The README promises an image of at most 30 MB; the other files have 0.3 MB.
    && test "$size" -lt 29600000
# The other files, as in dist/image.py.
RUN mkdir -p /data /image/tmp /image/etc/ssl/certs \
    && chmod 1777 /image/tmp \
    && cp -L /etc/ssl/certs/ca-certificates.crt /image/etc/ssl/certs/ \
    && echo nonroot:x:65532:65532:nonroot:/data:/none > /image/etc/passwd \
    && echo nonroot:x:65532: > /image/etc/group

FROM scratch
COPY --from=build /image/ /
COPY --from=build /tidemark /tidemark
# The folder of the embedded store. A new volume takes over owner and mode.
COPY --from=build --chown=65532:65532 /data /data
# The defaults listen on loopback only, which is not reachable from outside the
# container, and keep data in the working directory.
ENV TIDEMARK_LISTEN=0.0.0.0:50051 \
    TIDEMARK_METRICS_LISTEN=0.0.0.0:9464 \
    TIDEMARK_DATA_DIR=/data
VOLUME /data
# The user `nonroot` as a number: with a name Kubernetes could not verify
# `runAsNonRoot`.
USER 65532:65532
# checkov:skip=CKV_DOCKER_2: Kubernetes ignores HEALTHCHECK; its gRPC probes check more
EXPOSE 50051 9464
ENTRYPOINT ["/tidemark"]
CMD ["serve"]
