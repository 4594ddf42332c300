//! From one authority to the next, without anybody noticing: what is stored at each step.
//!
//! The key of a root is thrown away, so nothing can be signed below it later, and an issuer that renewed only itself would
//! still end with its root. So root and issuer change together. What connects them is the issuer in use, whose key is stored:
//! it certifies the keys of its successors, root and issuer, and peers that know only the old anchor go over those.

use std::str::FromStr;

use outrigger_core::{SpiffeId, TrustDomain, control_plane::Service};
use outrigger_identity::pem;
use rustls_pki_types::CertificateDer;
use time::{Duration, OffsetDateTime};
use x509_parser::{prelude::X509Certificate, x509::X509Name};

use super::{
    Authority, Material, MaterialError, NextIssuer, Profile,
    authority::{chain, is_signed_by, list, optional_list, parse},
    generate::Generation,
    paths::{arrange, expiry},
};

/// Why a step could not be prepared.
#[derive(Debug, thiserror::Error)]
pub enum SuccessionError {
    #[error(transparent)]
    Material(#[from] MaterialError),
    #[error("no issuer is announced")]
    NothingPending,
    #[error("cannot generate the next authority")]
    Generate(#[from] rcgen::Error),
}

/// How an authority stands: what its renewal depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Sentry made it; others are never replaced.
    pub generated: bool,
    pub not_before: OffsetDateTime,
    /// When certificates of the issuer stop to verify: it, or what is above it, expires.
    pub expires: OffsetDateTime,
    pub pending: Option<Pending>,
    /// When the first generated anchor expires that neither the issuer nor the announced one needs.
    pub superseded_until: Option<OffsetDateTime>,
}

/// An announced issuer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pending {
    Usable { not_before: OffsetDateTime },
    Unusable(String),
}

impl Standing {
    /// # Errors
    /// Material that cannot be read.
    pub fn of(material: &Material, now: OffsetDateTime) -> Result<Self, MaterialError> {
        let (anchors, chain) = anchors_and_chain(material)?;
        let anchors = parse(&anchors).map_err(MaterialError::Anchors)?;
        let chain = parse(&chain).map_err(MaterialError::IssuerChain)?;
        let head = &chain[0];
        let next = material
            .next
            .as_ref()
            .and_then(|next| self::chain(&next.chain).ok())
            .unwrap_or_default();
        let next = parse(&next).map_err(MaterialError::IssuerChain)?;
        let needed =
            |anchor: &X509Certificate<'_>| [head].into_iter().chain(next.first()).any(|h| is_signed_by(h, anchor));
        let superseded = anchors
            .iter()
            .filter(|anchor| is_generated_root(anchor) && !needed(anchor));
        Ok(Self {
            generated: is_generated_issuer(head)
                && anchors
                    .iter()
                    .any(|anchor| is_generated_root(anchor) && is_signed_by(head, anchor)),
            not_before: head.validity().not_before.to_datetime(),
            expires: last_moment(&chain, &anchors),
            pending: pending(material, now),
            superseded_until: superseded.map(expiry).min(),
        })
    }
}

fn anchors_and_chain(
    material: &Material,
) -> Result<(Vec<CertificateDer<'static>>, Vec<CertificateDer<'static>>), MaterialError> {
    let anchors = list(&material.anchors).map_err(MaterialError::Anchors)?;
    let chain = chain(&material.issuer_chain).map_err(MaterialError::IssuerChain)?;
    Ok((anchors, chain))
}

fn pending(material: &Material, now: OffsetDateTime) -> Option<Pending> {
    let next = material.next.as_ref()?;
    let taken_over = Material {
        issuer_chain: next.chain.clone(),
        issuer_key: next.key.clone(),
        next: None,
        ..material.clone()
    };
    // Another replica's clock may be ahead of ours: what it announces is judged as of when it begins.
    let begins = chain(&next.chain).ok().and_then(|chain| {
        let head = parse(&chain[..1]).ok()?;
        Some(head[0].validity().not_before.to_datetime())
    });
    let at = begins.map_or(now, |begins| begins.max(now));
    let usable = Authority::load(&taken_over, at).and_then(|authority| {
        let head = parse(&authority.chain()[..1]).map_err(MaterialError::IssuerChain)?;
        let anchors = list(&material.anchors).map_err(MaterialError::Anchors)?;
        let anchors = parse(&anchors).map_err(MaterialError::Anchors)?;
        // A way over the old issuer alone would end with it.
        if !anchors.iter().any(|anchor| is_signed_by(&head[0], anchor)) {
            return Err(MaterialError::Anchors(
                "the root of the next issuer is not among them".to_owned(),
            ));
        }
        Ok(head[0].validity().not_before.to_datetime())
    });
    Some(match usable {
        Ok(not_before) => Pending::Usable { not_before },
        Err(error) => Pending::Unusable(error.to_string()),
    })
}

/// When the last way from the issuer to an anchor ends.
fn last_moment(chain: &[X509Certificate<'_>], anchors: &[X509Certificate<'_>]) -> OffsetDateTime {
    let mut end = expiry(&chain[0]);
    let mut last = None;
    for certificate in chain {
        end = end.min(expiry(certificate));
        let anchors = anchors.iter().filter(|anchor| is_signed_by(certificate, anchor));
        last = last.max(anchors.map(|anchor| end.min(expiry(anchor))).max());
    }
    last.unwrap_or(end)
}

/// The organisation, when a name consists of nothing else, as in everything that sentry generates, upstream's included.
fn organization<'a>(name: &'a X509Name<'_>) -> Option<&'a str> {
    let (mut attributes, mut organizations) = (name.iter_attributes(), name.iter_organization());
    match (attributes.next(), attributes.next(), organizations.next()) {
        (Some(_), None, Some(organization)) => organization.as_str().ok(),
        _ => None,
    }
}

fn is_generated_root(certificate: &X509Certificate<'_>) -> bool {
    organization(certificate.subject()).is_some_and(|name| TrustDomain::new(name).is_ok())
}

fn is_generated_issuer(certificate: &X509Certificate<'_>) -> bool {
    let id = organization(certificate.subject()).and_then(|name| SpiffeId::from_str(name).ok());
    id.is_some_and(|id| {
        id.workload()
            .is_some_and(|workload| workload.app_id == Service::Sentry.app_id())
    })
}

/// Generates the next root and issuer. The anchors then have both roots; the issuer waits until they are everywhere.
///
/// A new root never expires before those it joins: a certificate below it would have to be renewed by a way that is gone. An
/// authority that has expired certifies nothing any more, but is succeeded as well.
///
/// # Errors
/// Material that cannot be used, or no randomness.
pub fn announce(material: &Material, profile: &Profile, now: OffsetDateTime) -> Result<Material, SuccessionError> {
    let expires = Standing::of(material, now)?.expires;
    let current = Authority::load(material, now.min(expires))?;
    let mut anchors = list(&material.anchors).map_err(MaterialError::Anchors)?;
    let parsed = parse(&anchors).map_err(MaterialError::Anchors)?;
    // A root of somebody else does not decide how long ours lives.
    let latest = parsed
        .iter()
        .filter(|anchor| is_generated_root(anchor))
        .map(expiry)
        .max();
    let latest = latest.unwrap_or(now);
    let generation = Generation::new(profile, now, latest.max(now + profile.ttl))?;

    let mut cross = optional_list(&material.cross).map_err(MaterialError::Cross)?;
    if now < expires && may_certify_authorities(current.chain())? {
        for successor in [&generation.root, &generation.issuer] {
            let certificate = successor.certified_by(current.issuer(), current.not_after())?;
            cross.push(certificate.der().clone());
        }
    }
    anchors.push(generation.root.certificate.der().clone());
    let known = [current.chain(), &cross].concat();
    let next = arrange(generation.issuer.certificate.der(), &known, &anchors, now).map_err(MaterialError::Cross)?;
    Ok(Material {
        anchors: pem::encode(&anchors),
        cross: pem::encode(&cross),
        next: Some(NextIssuer {
            chain: pem::encode(&next.chain),
            key: generation.issuer.key.serialize_pem(),
        }),
        ..material.clone()
    })
}

/// The announced issuer takes over.
///
/// # Errors
/// When none is announced, or it cannot be used.
pub fn switch(material: &Material, now: OffsetDateTime) -> Result<Material, SuccessionError> {
    let next = material.next.clone().ok_or(SuccessionError::NothingPending)?;
    let old = chain(&material.issuer_chain).map_err(MaterialError::IssuerChain)?;
    let cross = optional_list(&material.cross).map_err(MaterialError::Cross)?;
    let material = Material {
        anchors: material.anchors.clone(),
        issuer_chain: next.chain,
        issuer_key: next.key,
        cross: String::new(),
        next: None,
    };
    let (anchors, chain) = anchors_and_chain(&material)?;
    let cross = useful(&chain, &[old, cross].concat(), &anchors, now)?;
    let material = Material {
        cross: pem::encode(&cross),
        ..material
    };
    Authority::load(&material, now)?;
    Ok(material)
}

/// Drops generated anchors that expired at least `skew` ago and that no issuer needs, and the certificates that led to them.
///
/// # Errors
/// Material that cannot be used.
pub fn retire(material: &Material, skew: Duration, now: OffsetDateTime) -> Result<Material, SuccessionError> {
    let (anchors, chain) = anchors_and_chain(material)?;
    let next = material.next.as_ref().map(|next| self::chain(&next.chain)).transpose();
    let next = next.map_err(MaterialError::IssuerChain)?;
    let heads: Vec<_> = [chain[0].clone()]
        .into_iter()
        .chain(next.iter().flatten().next().cloned())
        .collect();
    let kept = {
        let heads = parse(&heads).map_err(MaterialError::IssuerChain)?;
        let parsed = parse(&anchors).map_err(MaterialError::Anchors)?;
        let over = |anchor: &X509Certificate<'_>| {
            is_generated_root(anchor)
                && expiry(anchor).saturating_add(skew) <= now
                && !heads.iter().any(|head| is_signed_by(head, anchor))
        };
        let kept = parsed.iter().zip(&anchors).filter(|(parsed, _)| !over(parsed));
        kept.map(|(_, anchor)| anchor.clone()).collect::<Vec<_>>()
    };
    let cross = optional_list(&material.cross).map_err(MaterialError::Cross)?;
    let known = [chain.as_slice(), next.as_deref().unwrap_or_default(), &cross].concat();
    let rearranged = |head: &CertificateDer<'static>| arrange(head, &known, &kept, now).map_err(MaterialError::Cross);
    let new_chain = rearranged(&chain[0])?.chain;
    let new_next = match (&material.next, next.as_deref()) {
        (Some(stored), Some([head, ..])) => Some(NextIssuer {
            chain: pem::encode(&rearranged(head)?.chain),
            key: stored.key.clone(),
        }),
        _ => None,
    };
    let mut cross = Vec::new();
    for head in &heads {
        for certificate in useful(std::slice::from_ref(head), &known, &kept, now)? {
            if !new_chain.contains(&certificate) && !cross.contains(&certificate) {
                cross.push(certificate);
            }
        }
    }
    let retired = Material {
        anchors: pem::encode(&kept),
        issuer_chain: pem::encode(&new_chain),
        issuer_key: material.issuer_key.clone(),
        cross: pem::encode(&cross),
        next: new_next,
    };
    // By a clock that is far ahead even the issuer in use has expired: nothing that cannot sign is ever stored.
    Authority::load(&retired, now)?;
    Ok(retired)
}

/// Takes an announcement back: the issuer, and its root unless that is in use.
///
/// # Errors
/// Material that cannot be read.
pub fn abandon(material: &Material, now: OffsetDateTime) -> Result<Material, SuccessionError> {
    let (anchors, chain) = anchors_and_chain(material)?;
    let next = material
        .next
        .as_ref()
        .and_then(|next| self::chain(&next.chain).ok())
        .unwrap_or_default();
    let kept = {
        let parsed = parse(&anchors).map_err(MaterialError::Anchors)?;
        let (next, chain) = (
            parse(&next).map_err(MaterialError::IssuerChain)?,
            parse(&chain).map_err(MaterialError::IssuerChain)?,
        );
        let announced = |anchor: &X509Certificate<'_>| {
            is_generated_root(anchor)
                && next.first().is_some_and(|head| is_signed_by(head, anchor))
                && !chain.iter().any(|certificate| is_signed_by(certificate, anchor))
        };
        let kept = parsed.iter().zip(&anchors).filter(|(parsed, _)| !announced(parsed));
        kept.map(|(_, anchor)| anchor.clone()).collect::<Vec<_>>()
    };
    // Rewritten only when something goes: the anchors may be somebody's own text.
    let anchors = if kept.len() == anchors.len() {
        material.anchors.clone()
    } else {
        pem::encode(&kept)
    };
    let cross = optional_list(&material.cross).unwrap_or_default();
    let cross = useful(&chain, &cross, &kept, now)?;
    Ok(Material {
        anchors,
        cross: pem::encode(&cross),
        next: None,
        ..material.clone()
    })
}

/// Of the `known` certificates those outside of `chain` that lead from its first to further anchors, and those of the first's
/// own key, over which its successors will go.
fn useful(
    chain: &[CertificateDer<'static>],
    known: &[CertificateDer<'static>],
    anchors: &[CertificateDer<'static>],
    now: OffsetDateTime,
) -> Result<Vec<CertificateDer<'static>>, MaterialError> {
    let all = [chain, known].concat();
    let arranged = arrange(&chain[0], &all, anchors, now).map_err(MaterialError::Cross)?;
    let mut useful = [arranged.chain, arranged.cross].concat();
    let parsed = parse(&all).map_err(MaterialError::Cross)?;
    let key = parsed[0].public_key().raw;
    let of_head = parsed
        .iter()
        .zip(&all)
        .filter(|(parsed, _)| parsed.public_key().raw == key && expiry(parsed) >= now);
    for (_, certificate) in of_head {
        if !useful.contains(certificate) {
            useful.push(certificate.clone());
        }
    }
    useful.retain(|certificate| !chain.contains(certificate));
    Ok(useful)
}

/// Whether further authorities may stand below this chain. With a limited path length they may not.
fn may_certify_authorities(chain: &[CertificateDer<'static>]) -> Result<bool, MaterialError> {
    let parsed = parse(chain).map_err(MaterialError::IssuerChain)?;
    Ok(parsed.iter().all(|certificate| {
        let constraints = certificate.basic_constraints().ok().flatten();
        constraints.is_some_and(|constraints| constraints.value.path_len_constraint.is_none())
    }))
}

#[cfg(test)]
mod tests;
