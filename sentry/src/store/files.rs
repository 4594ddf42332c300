//! Material in files, for sentry outside Kubernetes.

use std::{
    io::{self, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use super::{Found, Parts, StoreError, assemble};
use crate::{
    args::Names,
    ca::{Material, NextIssuer},
};

/// Files that only their owner may read. Each is replaced whole, but not all at once: what a crash leaves between two of them
/// is completed or ignored by [`FileStore::load`].
pub(crate) struct FileStore {
    names: Names,
}

impl FileStore {
    pub(crate) fn new(names: Names) -> Self {
        Self { names }
    }

    fn next(&self) -> (PathBuf, PathBuf) {
        (
            Names::next(&self.names.issuer_chain),
            Names::next(&self.names.issuer_key),
        )
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
        let (chain, mut key) = (read(issuer_chain)?, read(issuer_key)?);
        let (next_chain, next_key) = self.next();
        let mut next = match (read(&next_chain)?, read(&next_key)?) {
            (Some(chain), Some(key)) => Some(NextIssuer { chain, key }),
            // Cut short while it was announced or when it had taken over.
            _ => None,
        };
        // Cut short while it took over.
        if let Some(half) = next.take_if(|next| Some(&next.chain) == chain.as_ref()) {
            key = Some(half.key);
        }
        let parts = Parts {
            anchors: (&a, read(anchors)?),
            issuer_chain: (&b, chain),
            issuer_key: (&c, key),
        };
        assemble(&folder, parts, next, read(&self.names.cross())?)
    }

    /// Writes all files, each whole or not at all.
    ///
    /// # Errors
    /// Names the file.
    pub(crate) fn save(&self, material: &Material) -> Result<(), StoreError> {
        for (path, text) in self.changes(material) {
            match text {
                Some(text) => write(&path, text)?,
                None => remove(&path)?,
            }
        }
        Ok(())
    }

    /// What to write in which order, without a text what to remove. An announced issuer is complete before anything refers to
    /// it, and goes when nothing does any more.
    fn changes<'a>(&self, material: &'a Material) -> Vec<(PathBuf, Option<&'a str>)> {
        let (next_chain, next_key) = self.next();
        let next = material.next.as_ref();
        let (written, removed): (Vec<_>, _) = [
            (next_key, next.map(|next| next.key.as_str())),
            (next_chain, next.map(|next| next.chain.as_str())),
            (
                self.names.cross(),
                Some(material.cross.as_str()).filter(|cross| !cross.is_empty()),
            ),
            (self.names.anchors.clone(), Some(material.anchors.as_str())),
            (self.names.issuer_chain.clone(), Some(material.issuer_chain.as_str())),
            (self.names.issuer_key.clone(), Some(material.issuer_key.as_str())),
        ]
        .into_iter()
        .partition(|(_, text)| text.is_some());
        [written, removed].concat()
    }
}

fn remove(path: &Path) -> Result<(), StoreError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", path)(error)),
        _ => Ok(()),
    }
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.display().to_string();
    move |source| StoreError::File { action, path, source }
}

/// The text of a file; `None` when it does not exist.
///
/// # Errors
/// Names the file.
pub(crate) fn read(path: &Path) -> Result<Option<String>, StoreError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("read", path)(error)),
    }
}

/// Writes a file that only its owner may read, whole or not at all.
///
/// # Errors
/// Names the file.
pub(crate) fn write(path: &Path, text: &str) -> Result<(), StoreError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(failed("write", path))?;
    file.as_file()
        .set_permissions(std::fs::Permissions::from_mode(0o600))
        .map_err(failed("write", path))?;
    file.write_all(text.as_bytes()).map_err(failed("write", path))?;
    // The only copy of a key must not be an empty file after a power loss.
    file.as_file().sync_all().map_err(failed("write", path))?;
    file.persist(path).map_err(|error| failed("write", path)(error.error))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ca::{self, Authority, Profile, Standing};
    use outrigger_core::{TrustDomain, control_plane::Service};
    use time::{Duration, OffsetDateTime};

    fn names(folder: &Path) -> Names {
        Names {
            anchors: folder.join("ca.crt"),
            issuer_chain: folder.join("issuer.crt"),
            issuer_key: folder.join("issuer.key"),
        }
    }

    #[test]
    fn a_write_that_is_cut_short_anywhere_leaves_an_authority_that_signs() {
        let trust_domain = TrustDomain::new("cluster.local").unwrap();
        let profile = Profile {
            id: Service::Sentry.spiffe_id(&trust_domain, "dapr-system").unwrap(),
            trust_domain,
            ttl: Duration::days(10),
            skew: Duration::minutes(15),
        };
        let start = OffsetDateTime::now_utc();
        let (later, end) = (start + Duration::days(9), start + Duration::days(11));
        let first = ca::generate(&profile, start).unwrap();
        let announced = ca::announce(&first, &profile, later).unwrap();
        let switched = ca::switch(&announced, later).unwrap();
        let retired = ca::retire(&switched, profile.skew, end).unwrap();
        for (before, after, now) in [
            (&first, &announced, later),
            (&announced, &switched, later),
            (&switched, &retired, end),
        ] {
            let mut written = 0;
            loop {
                let folder = tempfile::tempdir().unwrap();
                let store = FileStore::new(names(folder.path()));
                store.save(before).unwrap();
                let changes = store.changes(after);
                let complete = written == changes.len();
                for (path, text) in changes.into_iter().take(written) {
                    match text {
                        Some(text) => write(&path, text).unwrap(),
                        None => remove(&path).unwrap(),
                    }
                }
                let Found::Material(found) = store.load().unwrap() else {
                    unreachable!("there was an authority")
                };
                Authority::load(&found, now).unwrap();
                Standing::of(&found, now).unwrap();
                if complete {
                    assert_eq!(found, *after);
                    break;
                }
                written += 1;
            }
            assert_eq!(written, 6);
        }
    }

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
        let mut material = Material {
            anchors: "a".into(),
            issuer_chain: "b".into(),
            issuer_key: "c".into(),
            cross: "d".into(),
            next: Some(NextIssuer {
                chain: "e".into(),
                key: "f".into(),
            }),
        };
        store.save(&material).unwrap();
        assert_eq!(store.load().unwrap(), Found::Material(material.clone()));
        let all = [
            "ca.crt",
            "issuer.crt",
            "issuer.key",
            "issuer.cross.crt",
            "issuer.next.crt",
            "issuer.next.key",
        ];
        for name in all {
            assert_eq!(
                std::fs::metadata(path(name)).unwrap().permissions().mode() & 0o777,
                0o600
            );
        }
        (material.cross, material.next) = (String::new(), None);
        store.save(&material).unwrap();
        assert_eq!(store.load().unwrap(), Found::Material(material));
        for name in &all[3..] {
            assert!(!path(name).exists(), "{name}");
        }
        std::fs::remove_file(path("issuer.key")).unwrap();
        assert!(matches!(store.load(), Err(StoreError::Partial { .. })));
    }
}
