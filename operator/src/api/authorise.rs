//! Who may ask for what: each sidecar for its own namespace. Codes and texts are upstream's.

use outrigger_core::SpiffeId;
use tonic::Status;

/// Who is calling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    pub namespace: String,
    pub app: String,
}

/// Why a call is denied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// No SPIFFE id, or one that does not name a workload.
    #[error("failed to determine identity")]
    Unidentified,
    #[error("identity does not match requested namespace exp={requested} got={actual}")]
    OtherNamespace { requested: String, actual: String },
}

impl Denied {
    /// Label of the metric.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Unidentified => "unidentified",
            Self::OtherNamespace { .. } => "other_namespace",
        }
    }
}

impl From<Denied> for Status {
    fn from(denied: Denied) -> Self {
        Self::permission_denied(denied.to_string())
    }
}

/// Checks a peer's verified identity against the namespace that it asks for. The trust domain does not matter: the trust
/// bundle vouches for all of them.
///
/// # Errors
/// See [`Denied`].
pub fn authorise(id: Option<&SpiffeId>, requested: &str) -> Result<Caller, Denied> {
    let workload = id.and_then(SpiffeId::workload).ok_or(Denied::Unidentified)?;
    if requested.is_empty() || requested != workload.namespace {
        return Err(Denied::OtherNamespace {
            requested: requested.to_owned(),
            actual: workload.namespace.to_owned(),
        });
    }
    Ok(Caller {
        namespace: workload.namespace.to_owned(),
        app: workload.app_id.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(id: &str, namespace: &str) -> Result<Caller, String> {
        let id: Option<SpiffeId> = (!id.is_empty()).then(|| id.parse().unwrap());
        authorise(id.as_ref(), namespace).map_err(|denied| Status::from(denied).message().to_owned())
    }

    #[test]
    fn a_sidecar_may_ask_for_its_own_namespace() {
        let caller = Caller {
            namespace: "shop".into(),
            app: "cart".into(),
        };
        assert_eq!(call("spiffe://public/ns/shop/cart", "shop"), Ok(caller.clone()));
        assert_eq!(call("spiffe://other/ns/shop/cart/more", "shop"), Ok(caller));
    }

    #[test]
    fn others_are_denied_in_upstreams_words() {
        for id in [
            "",
            "spiffe://public",
            "spiffe://public/ns/shop",
            "spiffe://public/sa/shop/cart",
        ] {
            assert_eq!(call(id, "shop"), Err("failed to determine identity".into()), "{id}");
        }
        assert_eq!(
            call("spiffe://public/ns/shop/cart", "bank"),
            Err("identity does not match requested namespace exp=bank got=shop".into())
        );
        assert_eq!(
            call("spiffe://public/ns/shop/cart", ""),
            Err("identity does not match requested namespace exp= got=shop".into())
        );
    }
}
