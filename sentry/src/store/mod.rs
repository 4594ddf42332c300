//! Where the authority's material is kept, and what to do with what is found there.

mod files;
mod kubernetes;

pub(crate) use files::FileStore;
pub(crate) use kubernetes::KubernetesStore;

use crate::ca::Material;

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
    #[error("{object}: {key} is not text")]
    NotText { object: String, key: String },
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

/// A store of either kind.
pub(crate) enum Store {
    Kubernetes(Box<KubernetesStore>),
    Files(FileStore),
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

/// An authority is generated only where nothing exists. One missing part is a mistake somebody made, and a new root would
/// break every sidecar.
fn assemble(
    object: &str,
    anchors: Part<'_>,
    issuer_chain: Part<'_>,
    issuer_key: Part<'_>,
) -> Result<Found, StoreError> {
    let parts = [&anchors, &issuer_chain, &issuer_key];
    let names = |present: bool| {
        let names: Vec<_> = parts
            .iter()
            .filter(|part| part.1.is_some() == present)
            .map(|part| part.0)
            .collect();
        names.join(" and ")
    };
    match (anchors.1.clone(), issuer_chain.1.clone(), issuer_key.1.clone()) {
        (Some(anchors), Some(issuer_chain), Some(issuer_key)) => Ok(Found::Material(Material {
            anchors,
            issuer_chain,
            issuer_key,
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
    fn half_an_authority_is_an_error() {
        let text = || Some("pem".to_owned());
        assert_eq!(
            assemble("o", ("a", None), ("b", None), ("c", None)).unwrap(),
            Found::Nothing
        );
        assert!(matches!(
            assemble("o", ("a", text()), ("b", text()), ("c", text())),
            Ok(Found::Material(_))
        ));
        let error = assemble(
            "Secret x",
            ("ca.crt", text()),
            ("issuer.crt", None),
            ("issuer.key", None),
        )
        .unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("Secret x has ca.crt but not issuer.crt and issuer.key")
        );
    }
}
