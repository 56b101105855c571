//! The service in the memory of its pod: 768 MiB, in a cgroup where one can be made.
//!
//! With `TEST_BINARY` it is an optimized build; `tests/tools/bounds` runs all tests that
//! use it so, and prints the peak of each.

use std::{fs::OpenOptions, io::Write as _, ops::Deref, thread};

use crate::{
    client::{Client, ready},
    support::{Tidemark, folder, memory::MemoryLimit},
};

/// Memory of the pod, in bytes.
pub const POD_BYTES: u64 = 768 << 20;
/// What a test may take of it at most, as long as it does not say otherwise. An idle
/// service has 30 MiB, a debug build 60 MiB.
const USUAL_PEAK_BYTES: u64 = 256 << 20;
/// Names the file that peaks are appended to.
const PEAKS: &str = "TEST_PEAKS";

/// A service in its pod. When it is dropped its peak memory is checked.
pub struct Pod {
    service: Tidemark,
    most: u64,
}

/// A service with the embedded store, ready.
pub async fn embedded() -> (Pod, Client) {
    embedded_with(&[]).await
}

/// The same with more arguments.
pub async fn embedded_with(more: &[&str]) -> (Pod, Client) {
    let dir = folder("data").display().to_string();
    let mut args = vec!["--data-dir", &dir];
    args.extend(more);
    Pod::ready(&args).await
}

impl Pod {
    /// A service with these arguments, in its pod.
    pub fn start(args: &[&str]) -> Self {
        Self::of(launch(args))
    }

    /// The same, ready.
    pub async fn ready(args: &[&str]) -> (Self, Client) {
        let (service, client) = ready(launch(args)).await;
        (Self::of(service), client)
    }

    const fn of(service: Tidemark) -> Self {
        let most = USUAL_PEAK_BYTES;
        Self { service, most }
    }

    /// Another bound of its peak memory, in MiB.
    pub const fn set_most(&mut self, mib: u64) {
        self.most = mib << 20;
    }

    /// The most memory that it had resident so far, in bytes.
    pub fn peak(&self) -> u64 {
        self.service.peak_memory().expect("it lives")
    }
}

fn launch(args: &[&str]) -> Tidemark {
    let limit = MemoryLimit::new(POD_BYTES);
    let mut args = args.to_vec();
    // In a cgroup it finds the limit by itself.
    if !limit.is_cgroup() && !args.contains(&"--memory-limit") {
        args.extend(["--memory-limit", "768MiB"]);
    }
    Tidemark::start_within(Some(limit), &args)
}

impl Deref for Pod {
    type Target = Tidemark;

    fn deref(&self) -> &Tidemark {
        &self.service
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        let limit = self.service.memory_limit().expect("a pod has one");
        let (resident, charged) = (self.service.peak_memory(), limit.peak());
        let mib = |bytes: Option<u64>| bytes.map_or("-".into(), |bytes| (bytes >> 20).to_string());
        let name = thread::current().name().unwrap_or("?").to_owned();
        let line = format!("{name}\t{}\t{}", mib(resident), mib(charged));
        eprintln!("peak, resident and with the kernel's part, in MiB: {line}");
        if let Some(file) = std::env::var_os(PEAKS) {
            let file = OpenOptions::new().create(true).append(true).open(file);
            writeln!(file.expect("TEST_PEAKS"), "{line}").expect("written");
        }
        if !thread::panicking() {
            assert_eq!(limit.kills(), 0, "killed for its memory");
            let most = self.most;
            assert!(resident.is_none_or(|peak| peak < most), "{line}: {most}");
        }
    }
}
