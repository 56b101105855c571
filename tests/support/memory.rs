//! A limit of memory around a process, as a pod has it: a memory cgroup where one
//! can be made, else `setrlimit`.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

/// Where cgroups are mounted.
const ROOT: &str = "/sys/fs/cgroup";
/// Begin of the names of groups; the process that made one follows.
const PREFIX: &str = "tidemark-test-";
/// Without a cgroup the process may map this much more than its memory: the allocator
/// reserves address space that it does not use.
const RESERVED_BYTES: u64 = 2 << 30;

/// Files of one version of cgroups, below the folder of the group.
struct Files {
    /// Folder of the memory controller below [`ROOT`].
    controller: &'static str,
    limit: &'static str,
    peak: &'static str,
    /// Has a line `oom_kill N`.
    events: &'static str,
}

const VERSIONS: [Files; 2] = [
    Files {
        controller: "",
        limit: "memory.max",
        peak: "memory.peak",
        events: "memory.events",
    },
    Files {
        controller: "memory",
        limit: "memory.limit_in_bytes",
        peak: "memory.max_usage_in_bytes",
        events: "memory.oom_control",
    },
];

/// A limit of memory for one process.
pub struct MemoryLimit {
    bytes: u64,
    /// `None`: no cgroup can be made here.
    group: Option<(PathBuf, &'static Files)>,
}

impl MemoryLimit {
    /// So many bytes.
    pub fn new(bytes: u64) -> Self {
        let group = VERSIONS.iter().find_map(|files| {
            let group = make_group(files, bytes)?;
            Some((group, files))
        });
        if group.is_none() {
            eprintln!("no memory cgroup can be made here: setrlimit bounds the service");
        }
        Self { bytes, group }
    }

    /// Whether a cgroup has the limit.
    pub const fn is_cgroup(&self) -> bool {
        self.group.is_some()
    }

    /// The command that becomes the program that follows it.
    pub(super) fn command(&self) -> Vec<String> {
        let words: &[&str] = match &self.group {
            Some(_) => &["sh", "-c", "echo $$ >\"$0\" && exec \"$@\""],
            None => &["prlimit"],
        };
        let mut command: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        command.push(match &self.group {
            Some((group, _)) => group.join("cgroup.procs").display().to_string(),
            None => format!("--data={}", self.bytes + RESERVED_BYTES),
        });
        command
    }

    /// The most that was charged to the cgroup, the kernel's part and cached files
    /// included; `None` without a cgroup, or where the kernel does not keep it.
    pub fn peak(&self) -> Option<u64> {
        let (group, files) = self.group.as_ref()?;
        let text = fs::read_to_string(group.join(files.peak)).ok()?;
        text.trim().parse().ok()
    }

    /// Processes that were killed because they needed more.
    pub fn kills(&self) -> u64 {
        let Some((group, files)) = &self.group else {
            return 0;
        };
        let text = fs::read_to_string(group.join(files.events)).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        line.and_then(|count| count.trim().parse().ok())
            .unwrap_or(0)
    }
}

impl Drop for MemoryLimit {
    fn drop(&mut self) {
        if let Some((group, _)) = &self.group {
            // Its process has ended. Left over, it is empty.
            let _ = fs::remove_dir(group);
        }
    }
}

/// Removes what test processes that were killed have left.
fn clear_leftovers(root: &Path) {
    for entry in fs::read_dir(root).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid = name
            .strip_prefix(PREFIX)
            .and_then(|name| name.split('-').next());
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            // Another test process may do the same.
            let _ = fs::remove_dir(entry.path());
        }
    }
}

fn make_group(files: &Files, bytes: u64) -> Option<PathBuf> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let root = Path::new(ROOT).join(files.controller);
    clear_leftovers(&root);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let group = root.join(format!("{PREFIX}{}-{number}", std::process::id()));
    let made = fs::create_dir(&group)
        // Made by the kernel; elsewhere it is a plain folder.
        .and_then(|()| fs::metadata(group.join("cgroup.procs")).map(drop))
        .and_then(|()| fs::write(group.join(files.limit), bytes.to_string()));
    if made.is_err() {
        let _ = fs::remove_dir(&group);
        return None;
    }
    Some(group)
}

/// The most memory that a process had resident so far, in bytes; `None`: it has ended.
/// The kernel adds up counts of its CPUs that lag: a later figure may be some hundred KiB
/// less.
pub fn peak_resident(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib = line.trim().strip_suffix(" kB")?.trim();
    Some(kib.parse::<u64>().ok()? << 10)
}
