//! SPIFFE ids as Dapr writes them: `spiffe://<trust domain>/ns/<namespace>/<app id>`.

use std::{fmt, str::FromStr};

/// Why a trust domain or an id is not legal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpiffeIdError {
    #[error("trust domain is empty")]
    EmptyTrustDomain,
    #[error("trust domain {0:?}: only lower-case letters, digits, '.', '_' and '-' are allowed")]
    TrustDomain(String),
    #[error("SPIFFE id {0:?}: expected the scheme spiffe://")]
    Scheme(String),
    #[error("path segment {0:?}: only letters, digits, '.', '_' and '-' are allowed, and not '.' or '..'")]
    Segment(String),
}

/// A legal trust domain: `[a-z0-9._-]+`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TrustDomain(String);

impl TrustDomain {
    /// Accepts a bare name, or a whole SPIFFE id whose trust domain is then used, as upstream does.
    ///
    /// # Errors
    /// Names the text that was found when it is empty or has other characters.
    pub fn new(text: &str) -> Result<Self, SpiffeIdError> {
        if text.contains(":/") {
            return Ok(SpiffeId::from_str(text)?.trust_domain);
        }
        if text.is_empty() {
            return Err(SpiffeIdError::EmptyTrustDomain);
        }
        let legal = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, b'.' | b'_' | b'-');
        if text.bytes().all(legal) {
            Ok(Self(text.to_owned()))
        } else {
            Err(SpiffeIdError::TrustDomain(text.to_owned()))
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A SPIFFE id: a trust domain and a path of legal segments.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpiffeId {
    trust_domain: TrustDomain,
    /// Empty, or begins with `/`.
    path: String,
}

impl SpiffeId {
    /// The identity of an app in a namespace.
    ///
    /// # Errors
    /// When namespace or app id are not legal path segments.
    pub fn new(trust_domain: TrustDomain, namespace: &str, app_id: &str) -> Result<Self, SpiffeIdError> {
        check_segment(namespace)?;
        check_segment(app_id)?;
        Ok(Self {
            trust_domain,
            path: format!("/ns/{namespace}/{app_id}"),
        })
    }

    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// Empty, or `/` followed by the segments.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Namespace and app id, or `None` when the path is not `/ns/<namespace>/<app id>`.
    /// Further segments are tolerated, as upstream does.
    pub fn workload(&self) -> Option<Workload<'_>> {
        let mut segments = self.path.split('/');
        if segments.next() != Some("") || segments.next() != Some("ns") {
            return None;
        }
        let namespace = segments.next().filter(|s| !s.is_empty())?;
        let app_id = segments.next().filter(|s| !s.is_empty())?;
        Some(Workload { namespace, app_id })
    }
}

/// Who a SPIFFE id stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Workload<'a> {
    pub namespace: &'a str,
    pub app_id: &'a str,
}

impl FromStr for SpiffeId {
    type Err = SpiffeIdError;

    fn from_str(text: &str) -> Result<Self, SpiffeIdError> {
        let rest = text
            .strip_prefix("spiffe://")
            .ok_or_else(|| SpiffeIdError::Scheme(text.to_owned()))?;
        let (domain, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
        if domain.contains(':') {
            return Err(SpiffeIdError::TrustDomain(domain.to_owned()));
        }
        let trust_domain = TrustDomain::new(domain)?;
        for segment in path.split('/').skip(1) {
            check_segment(segment)?;
        }
        Ok(Self {
            trust_domain,
            path: path.to_owned(),
        })
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spiffe://{}{}", self.trust_domain, self.path)
    }
}

fn check_segment(segment: &str) -> Result<(), SpiffeIdError> {
    let legal = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-');
    if segment.is_empty() || segment == "." || segment == ".." || !segment.bytes().all(legal) {
        return Err(SpiffeIdError::Segment(segment.to_owned()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> Result<SpiffeId, SpiffeIdError> {
        text.parse()
    }

    #[test]
    fn round_trips() {
        let td = TrustDomain::new("cluster.local").unwrap();
        let made = SpiffeId::new(td, "shop", "cart").unwrap();
        assert_eq!(made.to_string(), "spiffe://cluster.local/ns/shop/cart");
        assert_eq!(id(&made.to_string()).unwrap(), made);
        assert_eq!(
            made.workload(),
            Some(Workload {
                namespace: "shop",
                app_id: "cart"
            })
        );
    }

    #[test]
    fn tolerates_further_segments_and_rejects_other_paths() {
        assert_eq!(id("spiffe://td/ns/a/b/c").unwrap().workload().unwrap().app_id, "b");
        assert_eq!(id("spiffe://td/ns/a").unwrap().workload(), None);
        assert_eq!(id("spiffe://td/sa/a/b").unwrap().workload(), None);
        assert_eq!(id("spiffe://td").unwrap().workload(), None);
    }

    #[test]
    fn rejects_illegal_text() {
        for bad in [
            "https://td/ns/a/b",
            "spiffe://TD/ns/a/b",
            "spiffe:///ns/a/b",
            "spiffe://td/ns//b",
            "spiffe://td/ns/../b",
            "spiffe://td:1/x",
        ] {
            assert!(id(bad).is_err(), "{bad}");
        }
        assert!(TrustDomain::new("Up").is_err());
        assert_eq!(TrustDomain::new("spiffe://td/x").unwrap().as_str(), "td");
    }
}
