//! The memory limit that the system sets: that of the cgroup, version 2 or 1,
//! of this process, and of each one above it.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Where cgroups are mounted.
const ROOT: &str = "/sys/fs/cgroup";
/// Version 1 says "no limit" by a number of this size, rounded to pages.
const NO_LIMIT: u64 = 1 << 60;

/// The limit in bytes; `None`: there is none, or it cannot be read.
#[must_use]
pub fn of_this_process() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    lowest(Path::new(ROOT), &groups)
}

/// The lowest limit on the way from the process's cgroup up to the root.
fn lowest(root: &Path, groups: &str) -> Option<u64> {
    groups
        .lines()
        .filter_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            let (controllers, path) = (fields.next()?, fields.next()?);
            let (mount, file) = if controllers.is_empty() {
                (root.to_owned(), "memory.max")
            } else if controllers.split(',').any(|name| name == "memory") {
                (root.join("memory"), "memory.limit_in_bytes")
            } else {
                return None;
            };
            let group = mount.join(path.trim_start_matches('/'));
            up_from(&group, &mount)
                .filter_map(|group| read(&group.join(file)))
                .min()
        })
        .min()
}

fn up_from(group: &Path, mount: &Path) -> impl Iterator<Item = PathBuf> {
    group
        .ancestors()
        .take_while(|group| group.starts_with(mount))
        .map(Path::to_owned)
        .collect::<Vec<_>>()
        .into_iter()
}

fn read(file: &Path) -> Option<u64> {
    // "max" is no number: no limit.
    let bytes = fs::read_to_string(file).ok()?.trim().parse().ok()?;
    (bytes < NO_LIMIT).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, file: &str, text: &str) {
        let path = root.join(file);
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(path, text).expect("written");
    }

    #[test]
    fn version_2_is_read() {
        let root = tempfile::tempdir().expect("a folder");
        write(root.path(), "pod/memory.max", "805306368\n");
        write(root.path(), "pod/one/memory.max", "max\n");
        assert_eq!(lowest(root.path(), "0::/pod/one\n"), Some(768 << 20));
        assert_eq!(lowest(root.path(), "0::/\n"), None);
        // In a namespace of its own, the process sees its cgroup as the root.
        write(root.path(), "memory.max", "1048576\n");
        assert_eq!(lowest(root.path(), "0::/\n"), Some(1 << 20));
    }

    #[test]
    fn version_1_is_read() {
        let root = tempfile::tempdir().expect("a folder");
        write(
            root.path(),
            "memory/memory.limit_in_bytes",
            "9223372036854771712\n",
        );
        write(
            root.path(),
            "memory/pod/memory.limit_in_bytes",
            "805306368\n",
        );
        let groups = "9:cpu:/pod\n4:memory:/pod\n0::/\n";
        assert_eq!(lowest(root.path(), groups), Some(768 << 20));
        assert_eq!(lowest(root.path(), "4:memory:/\n"), None);
    }
}
