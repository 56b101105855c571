//! Kubernetes without a cluster: the results of the kubelet's probes while MongoDB
//! and Redis fail and recover, and a rolling update that must not lose a call.
//! `k8s/cluster` runs the same checks, and more, on a real cluster.

#[path = "../support/mod.rs"]
mod support;

mod logs;
mod probes;
mod rolling;
