//! Where the authority's material is kept, and what to do with what is found there.

pub(crate) mod files;
mod kubernetes;
mod objects;

pub(crate) use files::FileStore;
use k8s_openapi::api::core::v1::{ObjectReference, Secret};
use kube::Resource;
pub(crate) use kubernetes::{KubernetesStore, store_changes};
pub(crate) use objects::TrustBundle;
use time::{Duration, OffsetDateTime};

use crate::ca::{Material, NextIssuer};

/// Why material could not be loaded or saved.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    #[error("{object} does not exist: the chart creates it empty, and it has to stay")]
    Missing { object: String },
    #[error(
        "{object} has {found} but not {missing}: half an authority is never replaced silently; add what is missing, or remove the rest to start anew"
    )]
    Partial {
        object: String,
        found: String,
        missing: String,
    },
    #[error("{object} has {found} but not {missing}: half an announced issuer is of no use; remove it")]
    HalfNext {
        object: String,
        found: String,
        missing: String,
    },
    #[error("{object}: {key} is not text")]
    NotText { object: String, key: String },
    #[error(
        "it is {ours} here but {theirs} at the API server: no authority is made by a clock that is wrong; set it right, or the API server's"
    )]
    Clock {
        ours: OffsetDateTime,
        theirs: OffsetDateTime,
    },
    #[error("cannot {action} {object}")]
    Api {
        action: &'static str,
        object: String,
        #[source]
        source: Box<kube::Error>,
    },
    #[error("cannot {action} {path}")]
    File {
        action: &'static str,
        path: String,
        #[source]
        source: std::io::Error,
    },
}

impl StoreError {
    /// Whether waiting may help: objects appear later, API servers come back, and clocks are set. Material that is wrong stays so.
    pub(crate) fn may_pass(&self) -> bool {
        matches!(self, Self::Missing { .. } | Self::Api { .. } | Self::Clock { .. })
    }
}

/// A store of either kind.
pub(crate) enum Store {
    Kubernetes(Box<KubernetesStore>),
    Files(FileStore),
}

/// What was stored when a decision was made on it.
pub(crate) enum Version {
    Secret(Box<Secret>),
    /// Only one process uses the files.
    Files,
}

/// What became of the place where everybody reads the anchors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Published {
    AlreadyRight,
    Written,
    /// Another replica was faster; the next look sees what it wrote.
    Conflict,
}

impl Store {
    /// # Errors
    /// A store that cannot be read, or holds half an authority.
    pub(crate) async fn load(&self) -> Result<(Found, Version), StoreError> {
        match self {
            Self::Kubernetes(store) => store.load().await,
            Self::Files(store) => Ok((store.load()?, Version::Files)),
        }
    }

    /// Stores an authority unless somebody else changed the store since `version`: then the answer is `false`.
    ///
    /// # Errors
    /// A store that cannot be written.
    pub(crate) async fn save(&self, material: &Material, version: &Version) -> Result<bool, StoreError> {
        match (self, version) {
            (Self::Kubernetes(store), Version::Secret(secret)) => store.save(material, secret.as_ref().clone()).await,
            (Self::Kubernetes(_), Version::Files) => Ok(false),
            (Self::Files(store), _) => store.save(material).map(|()| true),
        }
    }

    /// Makes sure that the clock is right, as far as somebody else has one: within `skew`, or a few seconds.
    ///
    /// # Errors
    /// Both times.
    pub(crate) async fn check_clock(&self, now: OffsetDateTime, skew: Duration) -> Result<(), StoreError> {
        match self {
            Self::Kubernetes(store) => agree(now, store.time().await?, skew),
            Self::Files(_) => Ok(()),
        }
    }

    /// Makes the anchors known.
    ///
    /// # Errors
    /// A store that cannot be written.
    pub(crate) async fn publish(&self, anchors_pem: &str) -> Result<Published, StoreError> {
        match self {
            Self::Kubernetes(store) => store.heal_config_map(anchors_pem).await,
            // Whoever needs them reads the same file.
            Self::Files(_) => Ok(Published::AlreadyRight),
        }
    }
}

/// What a slow answer, and a time without fractions of a second, may account for.
const SMALL: Duration = Duration::seconds(10);

fn agree(ours: OffsetDateTime, theirs: Option<OffsetDateTime>, skew: Duration) -> Result<(), StoreError> {
    match theirs {
        Some(theirs) if (ours - theirs).abs() > skew.max(SMALL) => Err(StoreError::Clock { ours, theirs }),
        _ => Ok(()),
    }
}

/// Set by the chart on the Secret when its values supply the authority.
const SOURCE: &str = "dapr.io/ca-source";

impl Version {
    /// Whether somebody supplies the material and would put it back.
    pub(crate) fn supplied(&self) -> bool {
        let annotations = match self {
            Self::Secret(secret) => secret.metadata.annotations.as_ref(),
            Self::Files => None,
        };
        annotations.is_some_and(|annotations| annotations.get(SOURCE).is_some_and(|source| source == "values"))
    }

    /// The object to hang Events on.
    pub(crate) fn reference(&self) -> Option<ObjectReference> {
        match self {
            Self::Secret(secret) => Some(secret.object_ref(&())),
            Self::Files => None,
        }
    }
}

/// What a store holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Found {
    /// Nothing at all: the authority may be generated.
    Nothing,
    Material(Material),
}

/// One part of the material: the name it is stored under, and its text.
type Part<'a> = (&'a str, Option<String>);

/// The parts that every authority has.
struct Parts<'a> {
    anchors: Part<'a>,
    issuer_chain: Part<'a>,
    issuer_key: Part<'a>,
}

/// An announced issuer has both of its parts or none.
fn assemble_next(object: &str, chain: Part<'_>, key: Part<'_>) -> Result<Option<NextIssuer>, StoreError> {
    let half = |found: &str, missing: &str| StoreError::HalfNext {
        object: object.to_owned(),
        found: found.to_owned(),
        missing: missing.to_owned(),
    };
    match (chain.1, key.1) {
        (Some(chain), Some(key)) => Ok(Some(NextIssuer { chain, key })),
        (None, None) => Ok(None),
        (Some(_), None) => Err(half(chain.0, key.0)),
        (None, Some(_)) => Err(half(key.0, chain.0)),
    }
}

/// An authority is generated only where nothing exists. One missing part is a mistake somebody made, and a new root would
/// break every sidecar.
fn assemble(
    object: &str,
    parts: Parts<'_>,
    next: Option<NextIssuer>,
    cross: Option<String>,
) -> Result<Found, StoreError> {
    let Parts {
        anchors,
        issuer_chain,
        issuer_key,
    } = parts;
    let all = [&anchors, &issuer_chain, &issuer_key];
    let names = |present: bool| {
        let names: Vec<_> = all
            .iter()
            .filter(|part| part.1.is_some() == present)
            .map(|part| part.0)
            .collect();
        names.join(" and ")
    };
    match (&anchors.1, &issuer_chain.1, &issuer_key.1) {
        (Some(anchors), Some(issuer_chain), Some(issuer_key)) => Ok(Found::Material(Material {
            anchors: anchors.clone(),
            issuer_chain: issuer_chain.clone(),
            issuer_key: issuer_key.clone(),
            cross: cross.unwrap_or_default(),
            next,
        })),
        (None, None, None) => Ok(Found::Nothing),
        _ => Err(StoreError::Partial {
            object: object.to_owned(),
            found: names(true),
            missing: names(false),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_clock_is_an_error_that_may_pass() {
        let now = OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap();
        let skew = Duration::minutes(15);
        for (theirs, agreed) in [
            (None, true),
            (Some(now - skew), true),
            (Some(now - skew * 2), false),
            (Some(now + skew * 2), false),
        ] {
            let result = agree(now, theirs, skew);
            assert_eq!(result.is_ok(), agreed);
            if let Err(error) = result {
                assert!(
                    error.may_pass() && error.to_string().contains("2027-01-15 8:00:00"),
                    "{error}"
                );
            }
        }
        assert!(agree(now, Some(now + Duration::seconds(5)), Duration::ZERO).is_ok());
    }

    #[test]
    fn half_an_authority_is_an_error() {
        let text = || Some("pem".to_owned());
        let assembled = |a, b, c| {
            let parts = Parts {
                anchors: ("ca.crt", a),
                issuer_chain: ("issuer.crt", b),
                issuer_key: ("issuer.key", c),
            };
            assemble("Secret x", parts, None, None)
        };
        assert_eq!(assembled(None, None, None).unwrap(), Found::Nothing);
        assert!(matches!(assembled(text(), text(), text()), Ok(Found::Material(_))));
        let error = assembled(text(), None, None).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("Secret x has ca.crt but not issuer.crt and issuer.key")
        );

        let next = |a, b| assemble_next("Secret x", ("issuer.next.crt", a), ("issuer.next.key", b));
        assert_eq!(next(None, None).unwrap(), None);
        assert!(next(text(), text()).unwrap().is_some());
        let error = next(text(), None).unwrap_err().to_string();
        assert!(
            error.starts_with("Secret x has issuer.next.crt but not issuer.next.key"),
            "{error}"
        );
    }
}
