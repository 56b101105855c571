//! Kubernetes' part, played by a test: what the kubelet's probes are told while
//! the tiers come and go, and that a rolling update loses no call.

#[path = "../support/mod.rs"]
mod support;

mod probes;
mod rolling;
