//! The identity on disk, for programs that read their certificate from files, as the scheduler's etcd does.
//!
//! Each state is a folder of its own; a link with the directory's name points to the newest one and is replaced by a rename.
//! So readers that open files through the link see one state, never a mixture.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, symlink},
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer, X509Certificate};
use zeroize::Zeroizing;

use crate::{anchors::Anchors, error::Error, pem, svid::Svid};

/// Keeps the directory current. For one process: it removes the states of earlier ones.
pub(crate) struct Directory {
    parent: PathBuf,
    name: String,
    last: Option<Files>,
    /// Why the newest state is not there.
    failure: Option<String>,
}

/// What a change of trust anchors leaves as it is.
struct Files {
    key: Zeroizing<String>,
    certificates: String,
    jwt: Option<Zeroizing<String>>,
}

impl Directory {
    /// # Errors
    /// When `target` has no name or parent of its own, or is a folder already.
    pub(crate) fn new(target: &Path) -> Result<Self, Error> {
        let unusable = |reason: &str| Error::Directory {
            path: target.to_owned(),
            reason: reason.to_owned(),
        };
        let name = target.file_name().and_then(|name| name.to_str());
        let (Some(name), Some(parent)) = (name, target.parent()) else {
            return Err(unusable("expected a path that ends with a name"));
        };
        if target.is_dir() && !target.is_symlink() {
            return Err(unusable("it is a folder, where a link to the newest state has to be"));
        }
        Ok(Self {
            parent: if parent.as_os_str().is_empty() {
                Path::new(".")
            } else {
                parent
            }
            .to_owned(),
            name: name.to_owned(),
            last: None,
            failure: None,
        })
    }

    fn target(&self) -> PathBuf {
        self.parent.join(&self.name)
    }

    /// Writes a new certificate. When that fails, [`Directory::retry`] writes it later.
    pub(crate) fn write(&mut self, key: &PrivateKeyDer<'_>, svid: &Svid, anchors: &Anchors) {
        let mut key_pem = Zeroizing::new(String::new());
        pem::block("PRIVATE KEY", key.secret_der(), &mut key_pem);
        self.last = Some(Files {
            key: key_pem,
            certificates: without_roots(&svid.certified.cert),
            jwt: svid.base_jwt().map(|jwt| Zeroizing::new(jwt.token().to_owned())),
        });
        self.write_anchors(anchors);
    }

    /// Writes the last certificate anew beside changed anchors. Upstream leaves the old ones until the next renewal.
    pub(crate) fn write_anchors(&mut self, anchors: &Anchors) {
        let Some(files) = &self.last else { return };
        let result = self.switch(files, anchors);
        let failure = result.err().map(|error| {
            format!(
                "the identity directory {} cannot be written: {error}",
                self.target().display()
            )
        });
        if let Some(failure) = failure
            .as_ref()
            .filter(|failure| self.failure.as_ref() != Some(failure))
        {
            tracing::error!("{failure}; trying again");
        }
        self.failure = failure;
    }

    /// Writes again what could not be written; `false` when there is nothing.
    pub(crate) fn retry(&mut self, anchors: &Anchors) -> bool {
        let behind = self.failure.is_some();
        if behind {
            self.write_anchors(anchors);
        }
        behind
    }

    /// Why the newest state is not there.
    pub(crate) fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    fn switch(&self, files: &Files, anchors: &Anchors) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.parent)?;
        let nanos = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_nanos();
        let version = format!("{nanos}-{}", self.name);
        let folder = self.parent.join(&version);
        DirBuilder::new().mode(0o700).create(&folder)?;
        let result = self
            .fill(&folder, files, anchors)
            .and_then(|()| self.point_to(&version));
        match &result {
            Ok(()) => self.remove_others(&version),
            // It holds a key, and nobody will look for it.
            Err(_) => remove(&folder),
        }
        result
    }

    fn fill(&self, folder: &Path, files: &Files, anchors: &Anchors) -> io::Result<()> {
        write(&folder.join("key.pem"), &files.key)?;
        write(&folder.join("cert.pem"), &files.certificates)?;
        write(&folder.join("ca.pem"), anchors.pem())?;
        match &files.jwt {
            Some(jwt) => write(&folder.join("jwt_svid.token"), jwt),
            None => Ok(()),
        }
    }

    fn point_to(&self, version: &str) -> io::Result<()> {
        let link = self.parent.join(format!("{}.new", self.name));
        match fs::remove_file(&link) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        symlink(version, &link)?;
        fs::rename(&link, self.target())
    }

    /// Older states, also those of earlier processes: they hold keys.
    fn remove_others(&self, current: &str) {
        let Ok(entries) = fs::read_dir(&self.parent) else {
            return;
        };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let Some(name) = name.to_str().filter(|name| *name != current && self.is_version(name)) else {
                continue;
            };
            remove(&self.parent.join(name));
        }
    }

    fn is_version(&self, name: &str) -> bool {
        name.split_once('-').is_some_and(|(nanos, rest)| {
            rest == self.name && nanos.len() >= 16 && nanos.bytes().all(|c| c.is_ascii_digit())
        })
    }
}

fn remove(folder: &Path) {
    if let Err(error) = fs::remove_dir_all(folder) {
        tracing::warn!(folder = %folder.display(), %error, "cannot remove a state of the identity directory that is not in use");
    }
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())
}

/// The leaf and its intermediates.
fn without_roots(chain: &[CertificateDer<'static>]) -> String {
    let is_root = |der: &CertificateDer<'_>| {
        X509Certificate::from_der(der).is_ok_and(|(_, parsed)| {
            parsed.issuer().as_raw() == parsed.subject().as_raw() && parsed.verify_signature(None).is_ok()
        })
    };
    let intermediates = chain.iter().skip(1).filter(|der| !is_root(der));
    pem::encode(chain.iter().take(1).chain(intermediates))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        anchors::tests::root,
        sentry::Issued,
        svid::tests::{issued, svid_with},
    };
    use std::os::unix::fs::PermissionsExt;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    fn versions(parent: &Path) -> Vec<String> {
        let names = fs::read_dir(parent).unwrap().flatten();
        names
            .map(|entry| entry.file_name().into_string().unwrap())
            .filter(|name| name.ends_with("-tls"))
            .collect()
    }

    #[test]
    fn files_and_modes_are_upstreams() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("secrets/tls");
        let mut directory = Directory::new(&target).unwrap();
        let anchors = Anchors::from_pem(&format!("# comment\n{}", root("a"))).unwrap();
        let (good, key) = issued(1000, 3000);
        let with_root = Issued {
            chain: [good.chain.clone(), root("b").into_bytes()].concat(),
            ..good
        };
        directory.write(&key, &svid_with(&with_root, &key), &anchors);

        assert!(target.is_symlink());
        assert_eq!(mode(target.parent().unwrap()), 0o700);
        assert_eq!(mode(&target), 0o700);
        for name in ["key.pem", "cert.pem", "ca.pem"] {
            assert_eq!(mode(&target.join(name)), 0o600, "{name}");
        }
        let read = |name: &str| fs::read_to_string(target.join(name)).unwrap();
        assert!(read("key.pem").starts_with("-----BEGIN PRIVATE KEY-----\n"));
        assert!(rcgen::KeyPair::from_pem(&read("key.pem")).is_ok());
        assert_eq!(
            read("cert.pem").matches("BEGIN CERTIFICATE").count(),
            1,
            "roots are left out"
        );
        assert_eq!(read("ca.pem"), anchors.pem(), "as it was read");
        assert!(!target.join("jwt_svid.token").exists());
    }

    #[test]
    fn one_state_is_left_also_of_an_earlier_process() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("tls");
        let (issued, key) = issued(1000, 3000);
        let svid = svid_with(&issued, &key);
        let (first, second) = (
            Anchors::from_pem(&root("a")).unwrap(),
            Anchors::from_pem(&root("b")).unwrap(),
        );
        Directory::new(&target).unwrap().write(&key, &svid, &first);
        let old = versions(folder.path());
        // Neither ours nor like ours.
        fs::create_dir(folder.path().join("1-tls")).unwrap();
        // What a process left that ended between link and rename.
        symlink("nowhere", folder.path().join("tls.new")).unwrap();

        let mut directory = Directory::new(&target).unwrap();
        directory.write_anchors(&second);
        assert_eq!(
            fs::read_to_string(target.join("ca.pem")).unwrap(),
            first.pem(),
            "nothing to write yet"
        );
        directory.write(&key, &svid, &first);
        directory.write_anchors(&second);
        assert_eq!(fs::read_to_string(target.join("ca.pem")).unwrap(), second.pem());
        let left = versions(folder.path());
        assert_eq!(left.len(), 2, "{left:?}");
        assert!(left.contains(&"1-tls".to_owned()) && !left.contains(&old[0]));
    }

    #[test]
    fn what_cannot_be_written_leaves_nothing_and_is_written_later() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("tls");
        let mut directory = Directory::new(&target).unwrap();
        let (issued, key) = issued(1000, 3000);
        let anchors = Anchors::from_pem(&root("a")).unwrap();
        // A folder with something in it: neither a rename nor a removal of files replaces it.
        fs::create_dir_all(target.join("x")).unwrap();
        for _ in 0..2 {
            directory.write(&key, &svid_with(&issued, &key), &anchors);
            assert!(directory.failure().unwrap().contains("tls cannot be written"));
            assert!(versions(folder.path()).is_empty());
        }
        fs::remove_dir_all(&target).unwrap();
        assert!(directory.retry(&anchors));
        assert_eq!(directory.failure(), None);
        assert!(target.join("key.pem").exists());
        assert!(!directory.retry(&anchors), "once is enough");
    }

    #[test]
    fn a_real_folder_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let refusal = Directory::new(folder.path()).err().unwrap().to_string();
        assert!(refusal.contains("is a folder"), "{refusal}");
        assert!(Directory::new(Path::new("/")).is_err());
    }
}
