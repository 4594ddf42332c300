//! Images without Docker: archives that `ctr image import`, `docker load` and `kind load image-archive` take.
//!
//! An archive is a tar file with `manifest.json`, one configuration and one layer. The same input gives the same bytes:
//! entries are sorted, times are 0.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use aws_lc_rs::digest;
use serde_json::json;

/// The user and group that images run as and files belong to, as in distroless images.
pub const NON_ROOT: u32 = 65_532;

/// Why an image could not be packed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("path {0:?} in the image: expected an absolute path without `.` and `..`")]
    Path(String),
    #[error("path {0:?} in the image is given twice, or as a file and as a folder")]
    Twice(String),
    #[error("image name {0:?}: expected NAME:TAG")]
    Name(String),
    #[error("could not read {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error("could not write the image {name}")]
    Write { name: String, source: io::Error },
}

/// What goes into an image.
#[derive(Clone, Debug)]
pub struct Image {
    /// Name and tag, for example `localhost/sample-app:1`.
    pub name: String,
    pub files: Vec<File>,
    /// The program and its arguments; there is no entry point, so that a pod's `args` replace them all.
    pub command: Vec<String>,
}

/// A file of an image; its folders come along.
#[derive(Clone, Debug)]
pub struct File {
    /// Where its content is now.
    pub source: PathBuf,
    /// Where it is in the image, absolute.
    pub path: String,
    /// Permission bits.
    pub mode: u32,
}

/// Writes the archive to a file, which appears when it is complete.
pub fn pack_file(image: &Image, target: &Path) -> Result<(), Error> {
    let failed = |source| Error::Write {
        name: image.name.clone(),
        source,
    };
    let folder = target
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(failed)?;
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(failed)?;
    pack(image, &mut file)?;
    file.persist(target).map_err(|error| failed(error.error))?;
    Ok(())
}

/// Writes the archive.
pub fn pack(image: &Image, out: impl Write) -> Result<(), Error> {
    if !image.name.rsplit('/').next().is_some_and(|last| {
        last.split_once(':')
            .is_some_and(|(name, tag)| !name.is_empty() && !tag.is_empty())
    }) {
        return Err(Error::Name(image.name.clone()));
    }
    let layer = layer(image)?;
    let layer_digest = sha256(&layer);
    let config = config(image, &layer_digest).to_string().into_bytes();
    let (config_name, layer_name) = (format!("{}.json", sha256(&config)), format!("{layer_digest}.tar"));
    let manifest = json!([{"Config": config_name, "RepoTags": [image.name], "Layers": [layer_name]}]).to_string();

    let mut archive = tar::Builder::new(out);
    let write = |archive: &mut tar::Builder<_>| {
        append(archive, &config_name, 0o644, 0, &config)?;
        append(archive, &layer_name, 0o644, 0, &layer)?;
        append(archive, "manifest.json", 0o644, 0, manifest.as_bytes())?;
        archive.finish()
    };
    write(&mut archive).map_err(|source| Error::Write {
        name: image.name.clone(),
        source,
    })
}

fn layer(image: &Image) -> Result<Vec<u8>, Error> {
    let mut files = BTreeMap::new();
    for file in &image.files {
        if files.insert(relative(&file.path)?, file).is_some() {
            return Err(Error::Twice(file.path.clone()));
        }
    }
    let folders: BTreeSet<&str> = files
        .keys()
        .flat_map(|path| path.match_indices('/').map(|(end, _)| &path[..end]))
        .collect();
    if let Some(both) = folders.iter().find(|folder| files.contains_key(**folder)) {
        return Err(Error::Twice(format!("/{both}")));
    }

    let failed = |source| Error::Write {
        name: image.name.clone(),
        source,
    };
    let mut layer = tar::Builder::new(Vec::new());
    for folder in &folders {
        let mut header = header(0o755, NON_ROOT, 0);
        header.set_entry_type(tar::EntryType::Directory);
        layer
            .append_data(&mut header, format!("{folder}/"), io::empty())
            .map_err(failed)?;
    }
    for (path, file) in &files {
        let content = fs::read(&file.source).map_err(|source| Error::Read {
            path: file.source.clone(),
            source,
        })?;
        append(&mut layer, path, file.mode, NON_ROOT, &content).map_err(failed)?;
    }
    layer.into_inner().map_err(failed)
}

/// The path without its leading slash, as tar wants it.
fn relative(path: &str) -> Result<&str, Error> {
    path.strip_prefix('/')
        .filter(|rest| rest.split('/').all(|part| !matches!(part, "" | "." | "..")))
        .ok_or_else(|| Error::Path(path.to_owned()))
}

fn config(image: &Image, layer_digest: &str) -> serde_json::Value {
    json!({
        "architecture": architecture(),
        "os": "linux",
        "created": "1970-01-01T00:00:00Z",
        "config": {
            "User": format!("{NON_ROOT}:{NON_ROOT}"),
            "Cmd": image.command,
            "WorkingDir": "/",
        },
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{layer_digest}")]},
        "history": [{"created": "1970-01-01T00:00:00Z", "created_by": "outrigger"}],
    })
}

/// Go's name for the machine's architecture, which images are labelled with.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn header(mode: u32, owner: u32, size: usize) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_mode(mode);
    header.set_uid(owner.into());
    header.set_gid(owner.into());
    header.set_mtime(0);
    header.set_size(size as u64);
    header
}

fn append(archive: &mut tar::Builder<impl Write>, path: &str, mode: u32, owner: u32, content: &[u8]) -> io::Result<()> {
    archive.append_data(&mut header(mode, owner, content.len()), path, content)
}

/// In the usual spelling.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    digest::digest(&digest::SHA256, bytes)
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod tests;
