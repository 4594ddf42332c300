//! Material in files, for sentry outside Kubernetes.

use std::{
    io::{self, Write},
    os::unix::fs::PermissionsExt,
    path::Path,
};

use super::{Found, StoreError, assemble};
use crate::{args::Names, ca::Material};

/// Three files, which only their owner may read.
pub(crate) struct FileStore {
    names: Names,
}

impl FileStore {
    pub(crate) fn new(names: Names) -> Self {
        Self { names }
    }

    /// # Errors
    /// Files that exist and cannot be read, or half an authority.
    pub(crate) fn load(&self) -> Result<Found, StoreError> {
        let Names {
            anchors,
            issuer_chain,
            issuer_key,
        } = &self.names;
        let folder = anchors.parent().unwrap_or(Path::new(".")).display().to_string();
        let shown = |path: &Path| path.display().to_string();
        let (a, b, c) = (shown(anchors), shown(issuer_chain), shown(issuer_key));
        assemble(
            &folder,
            (&a, read(anchors)?),
            (&b, read(issuer_chain)?),
            (&c, read(issuer_key)?),
        )
    }

    /// Writes all files, each whole or not at all.
    ///
    /// # Errors
    /// Names the file.
    pub(crate) fn save(&self, material: &Material) -> Result<(), StoreError> {
        write(&self.names.anchors, &material.anchors)?;
        write(&self.names.issuer_chain, &material.issuer_chain)?;
        write(&self.names.issuer_key, &material.issuer_key)
    }
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.display().to_string();
    move |source| StoreError::File { action, path, source }
}

fn read(path: &Path) -> Result<Option<String>, StoreError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("read", path)(error)),
    }
}

fn write(path: &Path, text: &str) -> Result<(), StoreError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(failed("write", path))?;
    file.as_file()
        .set_permissions(std::fs::Permissions::from_mode(0o600))
        .map_err(failed("write", path))?;
    file.write_all(text.as_bytes()).map_err(failed("write", path))?;
    file.persist(path).map_err(|error| failed("write", path)(error.error))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_round_trip_and_are_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let names = Names {
            anchors: path("ca.crt"),
            issuer_chain: path("issuer.crt"),
            issuer_key: path("issuer.key"),
        };
        let store = FileStore::new(names);
        assert_eq!(store.load().unwrap(), Found::Nothing);
        let material = Material {
            anchors: "a".into(),
            issuer_chain: "b".into(),
            issuer_key: "c".into(),
        };
        store.save(&material).unwrap();
        assert_eq!(store.load().unwrap(), Found::Material(material));
        for name in ["ca.crt", "issuer.crt", "issuer.key"] {
            assert_eq!(
                std::fs::metadata(path(name)).unwrap().permissions().mode() & 0o777,
                0o600
            );
        }
        std::fs::remove_file(path("issuer.key")).unwrap();
        assert!(matches!(store.load(), Err(StoreError::Partial { .. })));
    }
}
