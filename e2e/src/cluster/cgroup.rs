//! The control groups below which a node keeps its pods, one place for each cluster: two kubelets that share one remove
//! each other's pods.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

const ROOT: &str = "/sys/fs/cgroup";
/// What kubelet wants to be switched on for its pods in version 2.
const CONTROLLERS: [&str; 6] = ["cpu", "cpuset", "hugetlb", "io", "memory", "pids"];

/// Kubelet's `cgroupRoot` for a cluster.
pub(crate) fn path(name: &str) -> String {
    format!("/outrigger-{name}")
}

/// Creates the group in every hierarchy.
pub(crate) fn create(name: &str) -> io::Result<()> {
    for hierarchy in hierarchies(Path::new(ROOT))? {
        if hierarchy.join("cgroup.controllers").exists() {
            for controller in CONTROLLERS {
                // Absent controllers cannot be switched on; kubelet names those that it misses.
                let _ = fs::write(hierarchy.join("cgroup.subtree_control"), format!("+{controller}"));
            }
        }
        fs::create_dir_all(below(&hierarchy, name))?;
    }
    Ok(())
}

/// Removes the group and those below it; an error while processes are still in them.
pub(crate) fn remove(name: &str) -> io::Result<()> {
    for hierarchy in hierarchies(Path::new(ROOT))? {
        remove_tree(&below(&hierarchy, name))?;
    }
    Ok(())
}

fn below(hierarchy: &Path, name: &str) -> PathBuf {
    hierarchy.join(path(name).trim_start_matches('/'))
}

/// One folder in version 2; one for each controller in version 1, where symbolic links are second names.
fn hierarchies(root: &Path) -> io::Result<Vec<PathBuf>> {
    if root.join("cgroup.controllers").exists() {
        return Ok(vec![root.to_owned()]);
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// The files in a group belong to the kernel; only folders are removed, the deepest first.
fn remove_tree(group: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(group) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(group)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_which_version_it_is() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("cpu,cpuacct")).unwrap();
        std::os::unix::fs::symlink("cpu,cpuacct", root.path().join("cpu")).unwrap();
        assert_eq!(hierarchies(root.path()).unwrap(), [root.path().join("cpu,cpuacct")]);
        fs::write(root.path().join("cgroup.controllers"), "cpu").unwrap();
        assert_eq!(hierarchies(root.path()).unwrap(), [root.path()]);
    }

    #[test]
    fn groups_go_with_their_children() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("a/b/c")).unwrap();
        remove_tree(&root.path().join("a")).unwrap();
        remove_tree(&root.path().join("a")).unwrap();
        assert!(!root.path().join("a").exists());
    }
}
