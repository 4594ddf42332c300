//! Where the Kubernetes programs are that tests and the local cluster run.
//!
//! They are built from `e2e/kubernetes` by `make kubernetes`, once for each content of that folder, into the user's cache.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs, io};

use aws_lc_rs::digest;

/// Names a folder with the programs and skips the search; for machines where they come from elsewhere.
pub const OVERRIDE: &str = "OUTRIGGER_KUBERNETES";

/// Part of the fingerprint; raise it when the way of building changes while the sources do not.
const RECIPE: &str = "1";

/// Why the programs cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "the Kubernetes programs are not built yet (looked for {0}): run `make kubernetes` once, it takes about 10 minutes"
    )]
    NotBuilt(PathBuf),
    #[error("neither XDG_CACHE_HOME nor HOME is set to an absolute path, so there is no place for what is built once")]
    NoCache,
    #[error("`go env GOVERSION` failed: {0}; install Go 1.26 or newer and have `go` on the PATH")]
    Go(String),
    #[error("could not read {0}")]
    Read(PathBuf, #[source] io::Error),
}

/// The built programs: one folder, one file for each name.
#[derive(Clone, Debug)]
pub struct Toolchain {
    bin: PathBuf,
}

impl Toolchain {
    /// Finds the programs that fit the checked-out sources.
    pub fn find() -> Result<Self, Error> {
        let bin = match env::var_os(OVERRIDE) {
            Some(folder) => PathBuf::from(folder),
            None => home(&fingerprint()?)?.join("bin"),
        };
        if bin.join("kubernetes").is_file() {
            Ok(Self { bin })
        } else {
            Err(Error::NotBuilt(bin.join("kubernetes")))
        }
    }

    /// The folder of all programs.
    pub fn bin(&self) -> &Path {
        &self.bin
    }

    /// One program, for example `kubectl` or `etcd`.
    pub fn program(&self, name: &str) -> PathBuf {
        self.bin.join(name)
    }
}

/// The folder of the user's cache that belongs to this project.
pub fn cache() -> Result<PathBuf, Error> {
    cache_of(
        env::var_os("XDG_CACHE_HOME").map(PathBuf::from),
        env::var_os("HOME").map(PathBuf::from),
    )
}

fn cache_of(xdg: Option<PathBuf>, home: Option<PathBuf>) -> Result<PathBuf, Error> {
    // The XDG specification has relative paths ignored.
    xdg.filter(|path| path.is_absolute())
        .or_else(|| home.filter(|path| path.is_absolute()).map(|path| path.join(".cache")))
        .map(|path| path.join("outrigger"))
        .ok_or(Error::NoCache)
}

/// The folder of the programs with this fingerprint; it exists when they were built.
pub fn home(fingerprint: &str) -> Result<PathBuf, Error> {
    Ok(cache()?.join("kubernetes").join(fingerprint))
}

/// The Go sources of the programs.
pub fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../e2e/kubernetes")
}

/// What the programs are built from: the content of the sources and the Go version.
pub fn fingerprint() -> Result<String, Error> {
    let sources = sources();
    Ok(digest_of(&go_version(&sources)?, &read_all(&sources)?))
}

/// Asked in the sources' folder, because their `go.mod` may choose another version than the installed one.
fn go_version(sources: &Path) -> Result<String, Error> {
    let output = Command::new("go")
        .args(["env", "GOVERSION", "GOOS", "GOARCH"])
        .current_dir(sources)
        .output()
        .map_err(|error| Error::Go(error.to_string()))?;
    if !output.status.success() {
        return Err(Error::Go(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn read_all(root: &Path) -> Result<BTreeMap<String, Vec<u8>>, Error> {
    let mut files = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        let failed = |error| Error::Read(folder.clone(), error);
        for entry in fs::read_dir(&folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if path.is_dir() {
                folders.push(path);
            } else if is_source(&path) {
                let content = fs::read(&path).map_err(|error| Error::Read(path.clone(), error))?;
                let name = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().into_owned();
                files.insert(name, content);
            }
        }
    }
    Ok(files)
}

fn is_source(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default();
    name == "go.mod" || name == "go.sum" || path.extension().is_some_and(|extension| extension == "go")
}

fn digest_of(go_version: &str, files: &BTreeMap<String, Vec<u8>>) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    let mut part = |bytes: &[u8]| {
        // Lengths first, so that moving bytes from one part to the next changes the digest.
        context.update(&(bytes.len() as u64).to_be_bytes());
        context.update(bytes);
    };
    part(RECIPE.as_bytes());
    part(go_version.as_bytes());
    for (name, content) in files {
        part(name.as_bytes());
        part(content);
    }
    context.finish().as_ref()[..8]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(content: &str) -> BTreeMap<String, Vec<u8>> {
        BTreeMap::from([
            ("go.mod".into(), content.into()),
            ("main.go".into(), b"package main".to_vec()),
        ])
    }

    #[test]
    fn fingerprint_follows_content_names_and_go() {
        let base = digest_of("go1.26.6", &files("module a"));
        assert_eq!(base, digest_of("go1.26.6", &files("module a")));
        assert_eq!(base.len(), 16);
        assert_ne!(base, digest_of("go1.26.7", &files("module a")));
        assert_ne!(base, digest_of("go1.26.6", &files("module b")));
        let moved = BTreeMap::from([
            ("go.modm".into(), b"odule a".to_vec()),
            ("ain.go".into(), b"package main".to_vec()),
        ]);
        assert_ne!(base, digest_of("go1.26.6", &moved));
    }

    #[test]
    fn sources_are_go_files_and_module_files() {
        let read = read_all(&sources()).expect("the sources are part of the checkout");
        assert!(read.contains_key("go.mod") && read.contains_key("coredns/go.sum"));
        assert!(read.contains_key("cmd/kubernetes/main.go"));
    }

    #[test]
    fn cache_follows_the_xdg_specification() {
        let path = |text: &str| Some(PathBuf::from(text));
        assert_eq!(
            cache_of(path("/x"), path("/h")).expect("absolute"),
            Path::new("/x/outrigger")
        );
        assert_eq!(
            cache_of(path("x"), path("/h")).expect("home"),
            Path::new("/h/.cache/outrigger")
        );
        assert!(matches!(cache_of(None, None), Err(Error::NoCache)));
    }
}
