# A static binary on an image with nothing else but certificate authorities and
# time zones: no shell, no package manager, no libc.
#   docker build -t tidemark:0.1.0 .

# Alpine's compiler builds for musl, which links everything in. `make` and `gcc`
# come with build-base: ring, in rustls, and mimalloc have parts in C.
FROM rust:1.95.0-alpine AS build
RUN apk add --no-cache build-base
WORKDIR /src
COPY . .
# The caches live on the builder, not in the image. `strip` leaves out the line
# tables that the release profile keeps for those who run it from a folder.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --config 'profile.release.strip="symbols"' \
    && cp target/release/tidemark /tidemark \
    && size=$(stat -c %s /tidemark) \
    # The promise of the README: what is over it, is not delivered.
    && test "$size" -lt 28000000

FROM gcr.io/distroless/static-debian12:nonroot
COPY --from=build /tidemark /tidemark
# The user of that image, by number: Kubernetes then sees that it is not root.
USER 65532:65532
# checkov:skip=CKV_DOCKER_2: Kubernetes does not read HEALTHCHECK; its gRPC probes ask more
EXPOSE 50051 9464
ENTRYPOINT ["/tidemark"]
CMD ["serve"]
