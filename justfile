# What is run often. `just` alone lists it.

default:
    @just --list

# Everything that must pass before a change lands.
test:
    ./test

# The service on the embedded store.
run *args:
    cargo run -- serve {{ args }}

# Format, lints, and the links of the documentation.
lint:
    cargo fmt --check
    cargo clippy --all-targets -- -D warnings
    RUSTDOCFLAGS='-D warnings' cargo doc --no-deps

# One test binary, as in `just one wire coherence::`.
one binary *filter:
    cargo test --test {{ binary }} -- {{ filter }}

# Release archives, image, bill of materials and checksums.
dist *targets:
    dist/build {{ targets }}

# Manifests, image, Compose, alerts and dashboard.
k8s:
    cargo build
    k8s/check

# A real Kubernetes on this machine: build, start, check, remove (wants root).
cluster *checks:
    k8s/cluster {{ checks }}

# Clients in four languages, a browser and grpcurl, against real servers.
clients:
    clients/test

# The page in a headless Chromium, with two replicas.
ui:
    ui/test

# Against the baselines, as in `just bench near_hit`; all of it takes a quarter
# of an hour.
bench *rows:
    cargo bench --bench compare -- short {{ rows }}

# Bounds and attacks with an optimized build in the memory of a pod: prints the
# peak of each. `just bounds long` attacks for two minutes.
bounds *args:
    tests/tools/bounds {{ args }}

# Counts of instructions, against their limits.
guard:
    benches/guard

# Eight targets, so many seconds each (wants cargo-fuzz and a nightly).
fuzz seconds="300":
    fuzz/run {{ seconds }}

# Licences, advisories and duplicates of the dependencies (wants cargo-deny).
deny:
    cargo deny check
