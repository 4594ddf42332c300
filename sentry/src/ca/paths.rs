//! Ways from an issuer up to each trust anchor. Roots share a name, and so do issuers: only signatures tell which belong
//! together, and peers that search for a path meet the certificates in the order in which they are sent.

use std::collections::VecDeque;

use rustls_pki_types::CertificateDer;
use time::OffsetDateTime;
use x509_parser::prelude::X509Certificate;

use super::authority::{is_signed_by, parse};

/// The most certificates between a workload's and an anchor that rustls-webpki follows; Go has no such limit.
const LONGEST: usize = 6;

/// Certificates of authorities, each once.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Arranged {
    /// From the issuer to the anchor that expires first, each signed by the next.
    pub(super) chain: Vec<CertificateDer<'static>>,
    /// What else is needed to reach the other anchors.
    pub(super) cross: Vec<CertificateDer<'static>>,
}

/// Finds the shortest way from `head` to each anchor, over those of the `others` that have not expired at `now`. Anchors that
/// have expired, and those that are out of reach, play no part.
pub(super) fn arrange(
    head: &CertificateDer<'static>,
    others: &[CertificateDer<'static>],
    anchors: &[CertificateDer<'static>],
    now: OffsetDateTime,
) -> Result<Arranged, String> {
    let mut certificates = vec![head.clone()];
    for other in others {
        if !certificates.contains(other) {
            certificates.push(other.clone());
        }
    }
    let parsed = parse(&certificates)?;
    let graph = Graph::new(&parsed, now);
    let mut anchors = parse(anchors)?;
    anchors.retain(|anchor| expiry(anchor) >= now);
    anchors.sort_by_key(expiry);
    let ways: Vec<_> = anchors
        .iter()
        .filter_map(|anchor| graph.shortest(|index| is_signed_by(&parsed[index], anchor)))
        .collect();
    let mut arranged = Arranged::default();
    for (number, way) in ways.iter().enumerate() {
        for certificate in way.iter().map(|index| &certificates[*index]) {
            if number == 0 {
                arranged.chain.push(certificate.clone());
            } else if !arranged.chain.contains(certificate) && !arranged.cross.contains(certificate) {
                arranged.cross.push(certificate.clone());
            }
        }
    }
    Ok(arranged)
}

pub(super) fn expiry(certificate: &X509Certificate<'_>) -> OffsetDateTime {
    certificate.validity().not_after.to_datetime()
}

/// Which certificate is signed by which others.
struct Graph(Vec<Vec<usize>>);

impl Graph {
    fn new(certificates: &[X509Certificate<'_>], now: OffsetDateTime) -> Self {
        let signers = |child: &X509Certificate<'_>| {
            let signs = |parent: &X509Certificate<'_>| expiry(parent) >= now && is_signed_by(child, parent);
            let all = certificates.iter().enumerate();
            all.filter(|(_, parent)| signs(parent))
                .map(|(index, _)| index)
                .collect()
        };
        Self(certificates.iter().map(signers).collect())
    }

    /// The shortest way from the first certificate to one that is `good`, both included.
    fn shortest(&self, good: impl Fn(usize) -> bool) -> Option<Vec<usize>> {
        let mut seen = vec![false; self.0.len()];
        let mut ways = VecDeque::from([vec![0]]);
        while let Some(way) = ways.pop_front() {
            let last = *way.last()?;
            if good(last) {
                return Some(way);
            }
            for &signer in &self.0[last] {
                if way.len() < LONGEST && !std::mem::replace(&mut seen[signer], true) {
                    ways.push_back(way.iter().copied().chain([signer]).collect());
                }
            }
        }
        None
    }
}
