//! Trust anchors: one set for all trust domains, as upstream has it.

use std::{fmt, future::Future, path::PathBuf, pin::Pin, sync::Arc};

use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};

use crate::{error::Error, pem};

/// Where trust anchors come from.
#[derive(Debug, Clone)]
pub enum AnchorSource {
    /// A PEM file that may appear later and is followed when it changes.
    File(PathBuf),
    /// As `File`, and while the file is missing another place is asked: the kubelet may take a minute to fill a volume that it
    /// mounted empty.
    FileOrElse { file: PathBuf, elsewhere: Elsewhere },
    /// PEM text, for example of an environment variable. Never changes.
    Static(String),
    /// The union of PEM text and a file; the file is followed when it exists and is not waited for.
    StaticAndFile { pem: String, file: PathBuf },
}

/// Another place that may have the PEM text of the anchors; `None` while it has not.
#[derive(Clone)]
pub struct Elsewhere(Arc<dyn Fn() -> Answer + Send + Sync>);

type Answer = Pin<Box<dyn Future<Output = Option<String>> + Send>>;

impl Elsewhere {
    pub fn new<F: Future<Output = Option<String>> + Send + 'static>(
        ask: impl Fn() -> F + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(move || Box::pin(ask())))
    }

    /// The anchors there; nothing when there are none, or none that can be read.
    pub(crate) async fn ask(&self) -> Option<Anchors> {
        Anchors::from_pem(&(self.0)().await?).ok()
    }
}

impl fmt::Debug for Elsewhere {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Elsewhere")
    }
}

/// A set of trust anchors.
#[derive(Debug, Clone)]
pub struct Anchors {
    pem: String,
    roots: Vec<Root>,
}

#[derive(Debug, Clone)]
struct Root {
    der: CertificateDer<'static>,
    anchor: TrustAnchor<'static>,
    not_before: i64,
    not_after: i64,
}

impl Anchors {
    /// No anchors: nothing verifies.
    pub(crate) fn empty() -> Self {
        Self {
            pem: String::new(),
            roots: Vec::new(),
        }
    }

    /// Reads a PEM list.
    ///
    /// # Errors
    /// When there is no certificate, or one cannot be parsed.
    pub fn from_pem(text: &str) -> Result<Self, Error> {
        let invalid = |reason: String| Error::Anchors(reason);
        let certificates = pem::certificates(text.as_bytes()).map_err(|error| invalid(error.to_string()))?;
        let mut roots = Vec::with_capacity(certificates.len());
        for (index, der) in certificates.into_iter().enumerate() {
            let number = index + 1;
            let anchor = webpki::anchor_from_trusted_cert(&der)
                .map_err(|error| invalid(format!("certificate {number} cannot be an anchor: {error}")))?
                .to_owned();
            let (_, parsed) = x509_parser::parse_x509_certificate(&der)
                .map_err(|error| invalid(format!("certificate {number} is not X.509: {error}")))?;
            let validity = parsed.validity();
            let (not_before, not_after) = (validity.not_before.timestamp(), validity.not_after.timestamp());
            roots.push(Root {
                der: der.clone(),
                anchor,
                not_before,
                not_after,
            });
        }
        Ok(Self {
            pem: text.to_owned(),
            roots,
        })
    }

    /// The text as it was read, comments included.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// The certificates themselves, for those who compare sets rather than texts.
    pub fn certificates(&self) -> impl Iterator<Item = &CertificateDer<'static>> {
        self.roots.iter().map(|root| &root.der)
    }

    /// Anchors within their validity at `now`. rustls-webpki does not look at an anchor's dates, upstream does.
    pub(crate) fn valid_at(&self, now: UnixTime) -> Vec<TrustAnchor<'static>> {
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        self.roots
            .iter()
            .filter(|root| root.not_before <= now && now <= root.not_after)
            .map(|root| root.anchor.clone())
            .collect()
    }

    /// Both sets, each certificate once, ours first.
    pub(crate) fn union(&self, other: &Self) -> Self {
        let mut both = self.clone();
        for root in &other.roots {
            if !both.roots.iter().any(|known| known.der == root.der) {
                both.roots.push(root.clone());
            }
        }
        if both.roots.len() > self.roots.len() {
            // Not the texts one after the other: what ends the reading of the first would hide the second.
            both.pem = pem::encode(both.certificates());
        }
        both
    }
}

impl PartialEq for Anchors {
    /// Same text: a changed comment counts as a change, since the text itself is handed on.
    fn eq(&self, other: &Self) -> bool {
        self.pem == other.pem
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// PEM of a new self-signed authority.
    pub(crate) fn root(name: &str) -> String {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::OrganizationName, name);
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.self_signed(&key).unwrap().pem()
    }

    #[test]
    fn union_keeps_each_certificate_once() {
        let (a, b) = (root("a"), root("b"));
        let first = Anchors::from_pem(&a).unwrap();
        let both = first.union(&Anchors::from_pem(&format!("# two\n{a}{b}")).unwrap());
        assert_eq!(both.certificates().count(), 2);
        assert_eq!(Anchors::from_pem(both.pem()).unwrap().certificates().count(), 2);
        assert_eq!(first.union(&first).pem(), first.pem());
        // Whoever reads the union sees both, whatever follows the certificates of the first.
        let trailing = Anchors::from_pem(&format!("{a}-----BEGIN X-----\nAAAA\n-----END X-----\n")).unwrap();
        let union = trailing.union(&Anchors::from_pem(&b).unwrap());
        assert_eq!(Anchors::from_pem(union.pem()).unwrap().certificates().count(), 2);
    }

    #[test]
    fn reading_stops_at_the_first_block_of_another_kind() {
        let text = format!(
            "{}-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n{}",
            root("a"),
            root("b")
        );
        assert_eq!(Anchors::from_pem(&text).unwrap().certificates().count(), 1);
        assert!(Anchors::from_pem("no certificates here").is_err());
    }

    #[test]
    fn anchors_out_of_their_dates_do_not_count() {
        let anchors = Anchors::from_pem(&root("a")).unwrap();
        assert_eq!(
            anchors
                .valid_at(UnixTime::since_unix_epoch(std::time::Duration::from_secs(
                    1_700_000_000
                )))
                .len(),
            1
        );
        assert!(
            anchors
                .valid_at(UnixTime::since_unix_epoch(std::time::Duration::from_secs(0)))
                .is_empty()
        );
    }
}
