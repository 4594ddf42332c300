//! A cluster's folder in the user's cache, and the lock that only one start or one running node holds.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use outrigger_testkit::toolchain;
use serde::{Deserialize, Serialize};

/// Covered by the node's own files in its namespaces: what it needs from the machine must not be there.
const COVERED: [&str; 4] = ["/run", "/var/run", "/var/lib", "/var/log"];

/// A problem with the cluster's name or files.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "cluster name {0:?}: expected up to 40 lower-case letters, digits and dashes, with a letter or digit at both ends"
    )]
    Name(String),
    #[error(transparent)]
    Cache(#[from] toolchain::Error),
    #[error(
        "{path} is below {covered}, which a node covers with files of its own: set XDG_CACHE_HOME to another place"
    )]
    Covered { path: PathBuf, covered: &'static str },
    #[error("could not use {path}")]
    File { path: PathBuf, source: io::Error },
}

/// Where everything of one cluster is.
#[derive(Clone, Debug)]
pub struct Folder {
    name: String,
    root: PathBuf,
}

/// Held while a cluster is started and, by the node, while it runs.
pub(crate) struct Lock {
    file: File,
    path: PathBuf,
}

/// Somebody else holds the lock.
pub(crate) struct Busy {
    /// The process that took it, which may have handed it on to the node.
    pub(crate) pid: String,
}

/// What is to be known about a started node.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Record {
    /// The process whose death ends the node.
    pub(crate) pid: u32,
    /// The API server's port on 127.0.0.1.
    pub(crate) port: u16,
}

impl Folder {
    /// The folder of the cluster with this name, which need not exist.
    pub fn of(name: &str) -> Result<Self, Error> {
        let inside = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if name.is_empty()
            || name.len() > 40
            || !name.chars().all(inside)
            || name.starts_with('-')
            || name.ends_with('-')
        {
            return Err(Error::Name(name.to_owned()));
        }
        Ok(Self {
            name: name.to_owned(),
            root: toolchain::cache()?.join("clusters").join(name),
        })
    }

    /// The same from the inside of the node, whose environment is empty.
    pub(crate) fn at(root: PathBuf) -> Result<Self, Error> {
        let name = root.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Self { name, root })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// For people: reaches the API server from outside the node.
    pub fn kubeconfig(&self) -> PathBuf {
        self.root.join("kubeconfig")
    }

    /// Logs of the node's programs, and the audit log.
    pub fn logs(&self) -> PathBuf {
        self.root.join("logs")
    }

    pub(crate) fn log(&self, program: &str) -> PathBuf {
        self.logs().join(format!("{program}.log"))
    }

    pub(crate) fn pki(&self, file: &str) -> PathBuf {
        self.root.join("pki").join(file)
    }

    pub(crate) fn etc(&self, file: &str) -> PathBuf {
        self.root.join("etc").join(file)
    }

    /// What the node has as `/var/lib` or `/var/log`.
    pub(crate) fn var(&self, name: &str) -> PathBuf {
        self.root.join("var").join(name)
    }

    pub(crate) fn journal(&self) -> PathBuf {
        self.root.join("journal")
    }

    /// Creates the folder, empty besides its subfolders.
    pub(crate) fn create(&self) -> Result<(), Error> {
        for path in [
            self.logs(),
            self.pki(""),
            self.etc(""),
            self.var("lib"),
            self.var("log"),
        ] {
            fs::create_dir_all(&path).map_err(|source| Error::File { path, source })?;
        }
        Ok(())
    }

    /// Removes the folder; says whether there was one.
    pub(crate) fn remove(&self) -> Result<bool, Error> {
        match fs::remove_dir_all(&self.root) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(source) => Err(Error::File {
                path: self.root.clone(),
                source,
            }),
        }
    }

    fn lock_file(&self) -> PathBuf {
        self.root.with_extension("lock")
    }

    /// Who has the lock.
    pub(crate) fn busy(&self) -> Result<Option<Busy>, Error> {
        let path = self.lock_file();
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file.map_err(|source| Error::File {
                path: path.clone(),
                source,
            })?,
        };
        // Shared, so that two who look do not take each other for an owner.
        match file.try_lock_shared() {
            Ok(()) => Ok(None),
            Err(TryLockError::WouldBlock) => Ok(Some(Busy {
                pid: fs::read_to_string(&path).unwrap_or_default(),
            })),
            Err(TryLockError::Error(source)) => Err(Error::File { path, source }),
        }
    }

    /// Takes the lock if nobody has it.
    pub(crate) fn try_lock(&self) -> Result<Result<Lock, Busy>, Error> {
        let path = self.lock_file();
        let at = |source| Error::File {
            path: path.clone(),
            source,
        };
        fs::create_dir_all(self.root.parent().unwrap_or(&self.root)).map_err(at)?;
        let mut file = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)
            .map_err(at)?;
        match file.try_lock() {
            Ok(()) if is_still(&file, &path).map_err(at)? => {
                file.set_len(0)
                    .and_then(|()| write!(file, "{}", std::process::id()))
                    .map_err(at)?;
                Ok(Ok(Lock { file, path }))
            }
            // The owner before removed the file: the lock is on nothing.
            Ok(()) => self.try_lock(),
            Err(TryLockError::WouldBlock) => Ok(Err(Busy {
                pid: fs::read_to_string(&path).unwrap_or_default(),
            })),
            Err(TryLockError::Error(source)) => Err(at(source)),
        }
    }

    pub(crate) fn write_record(&self, record: &Record) -> Result<(), Error> {
        let path = self.root.join("cluster.json");
        let text = serde_json::to_string(record).map_err(io::Error::from);
        text.and_then(|text| fs::write(&path, text))
            .map_err(|source| Error::File { path, source })
    }

    /// None while there is no node.
    pub(crate) fn record(&self) -> Option<Record> {
        let text = fs::read_to_string(self.root.join("cluster.json")).ok()?;
        serde_json::from_str(&text).ok()
    }
}

impl Lock {
    /// A second handle of the same lock, for the node: it is held until both are closed.
    pub(crate) fn share(&self) -> io::Result<File> {
        self.file.try_clone()
    }

    /// Gives the lock back and leaves no file.
    pub(crate) fn remove(self) -> io::Result<()> {
        fs::remove_file(&self.path)
    }
}

fn is_still(file: &File, path: &Path) -> io::Result<bool> {
    let opened = file.metadata()?;
    match fs::metadata(path) {
        Ok(found) => Ok((found.dev(), found.ino()) == (opened.dev(), opened.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Fails for a path that the node would not see.
pub(crate) fn require_visible(path: &Path) -> Result<(), Error> {
    match COVERED.iter().find(|covered| path.starts_with(covered)) {
        Some(covered) => Err(Error::Covered {
            path: path.to_owned(),
            covered,
        }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_names_of_nodes() {
        for name in ["outrigger", "a", "blue-2"] {
            assert_eq!(Folder::of(name).unwrap().name(), name);
        }
        for name in ["", "-a", "a-", "A", "a/b", "..", &"a".repeat(41)] {
            assert!(matches!(Folder::of(name), Err(Error::Name(_))), "{name}");
        }
    }

    #[test]
    fn covered_places_are_refused() {
        assert!(require_visible(Path::new("/root/.cache/outrigger")).is_ok());
        assert!(require_visible(Path::new("/var/libs")).is_ok());
        let error = require_visible(Path::new("/var/lib/ci/outrigger"))
            .unwrap_err()
            .to_string();
        assert!(error.contains("/var/lib,"), "{error}");
    }

    #[test]
    fn lock_is_held_until_every_handle_is_closed() {
        let parent = tempfile::tempdir().unwrap();
        let folder = Folder::at(parent.path().join("blue")).unwrap();
        let lock = folder.try_lock().unwrap().ok().unwrap();
        let shared = lock.share().unwrap();
        drop(lock);
        let busy = folder.try_lock().unwrap().err().unwrap();
        assert_eq!(busy.pid, std::process::id().to_string());
        assert!(folder.busy().unwrap().is_some());
        drop(shared);
        assert!(folder.busy().unwrap().is_none());
        assert!(folder.try_lock().unwrap().is_ok());
    }

    #[test]
    fn a_removed_lock_can_be_taken_again() {
        let parent = tempfile::tempdir().unwrap();
        let folder = Folder::at(parent.path().join("blue")).unwrap();
        assert!(folder.busy().unwrap().is_none());
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);
        folder.try_lock().unwrap().ok().unwrap().remove().unwrap();
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);
        let _lock = folder.try_lock().unwrap().ok().unwrap();
        assert!(folder.busy().unwrap().is_some());
    }
}
