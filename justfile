# What is run often. `just` alone lists it.

default:
    @just --list

# All that must pass before a change lands.
test:
    ./test

# The service on the embedded store.
run *args:
    cargo run -- serve {{ args }}

# Form and lints, in seconds.
lint:
    cargo fmt --check
    cargo clippy --all-targets -- -D warnings

# One test binary, as in `just one wire coherence::`.
one binary *filter:
    cargo test --test {{ binary }} -- {{ filter }}

# Manifests, image, Compose, alerts and dashboard.
k8s:
    cargo build
    k8s/check

# Licences, advisories and duplicates of the dependencies (wants cargo-deny).
deny:
    cargo deny check
