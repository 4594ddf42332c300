use super::*;
use crate::ca::{
    generate,
    testing::{profile, signed, supplied},
};
use rcgen::{BasicConstraints, CertificateParams, IsCa};

fn start() -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap()
}

fn rotated(material: &Material, now: OffsetDateTime) -> Material {
    let announced = announce(material, &profile("cluster.local"), now).unwrap();
    assert_eq!(announced.issuer_chain, material.issuer_chain, "nothing else signs yet");
    switch(&announced, now).unwrap()
}

fn certificates(text: &str) -> Vec<CertificateDer<'static>> {
    list(text).unwrap()
}

/// What a workload certificate carries behind the leaf.
fn sent(material: &Material, now: OffsetDateTime) -> Vec<CertificateDer<'static>> {
    signed(&Authority::load(material, now).unwrap(), now).split_off(1)
}

/// Whether the certificates alone lead from the first to this anchor.
fn reaches(certificates: &[CertificateDer<'static>], anchor: &CertificateDer<'static>, now: OffsetDateTime) -> bool {
    let arranged = arrange(&certificates[0], certificates, std::slice::from_ref(anchor), now).unwrap();
    !arranged.chain.is_empty()
}

#[test]
fn generated_material_is_known_by_its_names() {
    let generated = generate(&profile("cluster.local"), start()).unwrap();
    let standing = Standing::of(&generated, start()).unwrap();
    assert!(standing.generated);
    assert_eq!(standing.not_before, start() - Duration::minutes(15));
    assert_eq!(standing.expires, start() + Duration::days(365));
    assert_eq!((standing.pending, standing.superseded_until), (None, None));

    let supplied = supplied(&rcgen::PKCS_ED25519, start(), |_| {}).material;
    assert!(!Standing::of(&supplied, start()).unwrap().generated);
}

#[test]
fn an_announcement_changes_the_anchors_only() {
    let old = generate(&profile("cluster.local"), start()).unwrap();
    let now = start() + Duration::days(330);
    let announced = announce(&old, &profile("cluster.local"), now).unwrap();
    assert_eq!(
        (&announced.issuer_chain, &announced.issuer_key),
        (&old.issuer_chain, &old.issuer_key)
    );
    let anchors = certificates(&announced.anchors);
    assert_eq!(anchors[..1], certificates(&old.anchors));
    assert_eq!(anchors.len(), 2);
    assert_eq!(sent(&announced, now), certificates(&old.issuer_chain));
    let standing = Standing::of(&announced, now).unwrap();
    let not_before = now - Duration::minutes(15);
    assert_eq!(standing.pending, Some(Pending::Usable { not_before }));
    assert_eq!(standing.superseded_until, None, "both roots are needed");

    // Taken back, nothing of it is left.
    assert_eq!(abandon(&announced, now).unwrap(), old);
}

#[test]
fn the_cross_certificate_is_the_new_root_signed_by_the_old_issuer() {
    let old = generate(&profile("cluster.local"), start()).unwrap();
    let now = start() + Duration::days(330);
    let new = rotated(&old, now);
    let (chain, anchors) = (certificates(&new.issuer_chain), certificates(&new.anchors));
    assert_eq!(chain.len(), 3);
    assert_eq!(chain[2], certificates(&old.issuer_chain)[0]);
    let (chain, anchors) = (parse(&chain).unwrap(), parse(&anchors).unwrap());
    let (issuer, cross, old_issuer, root) = (&chain[0], &chain[1], &chain[2], &anchors[1]);
    assert_eq!(cross.public_key(), root.public_key());
    assert_eq!(cross.subject().as_raw(), root.subject().as_raw());
    let key_id = |certificate: &X509Certificate<'_>| {
        let extensions = certificate.extensions().to_vec();
        extensions.iter().find_map(|e| match e.parsed_extension() {
            x509_parser::extensions::ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
            _ => None,
        })
    };
    let authority_id = |certificate: &X509Certificate<'_>| {
        let extensions = certificate.extensions().to_vec();
        extensions.iter().find_map(|e| match e.parsed_extension() {
            x509_parser::extensions::ParsedExtension::AuthorityKeyIdentifier(id) => {
                Some(id.key_identifier.clone()?.0.to_vec())
            }
            _ => None,
        })
    };
    assert_eq!(key_id(cross), key_id(root));
    assert_eq!(authority_id(cross), key_id(old_issuer));
    assert_eq!(authority_id(issuer), key_id(root));
    assert_eq!(expiry(cross), expiry(old_issuer), "clamped");
    assert_eq!(expiry(root), now + Duration::days(365));
    assert_eq!(
        organization(root.subject()),
        organization(anchors[0].subject()),
        "roots share a name"
    );
}

#[test]
fn three_rotations_on_one_root_reach_every_anchor_within_the_depth_that_peers_follow() {
    let mut material = generate(&profile("cluster.local"), start()).unwrap();
    for day in 1..=4 {
        let now = start() + Duration::days(day);
        material = rotated(&material, now);
        let (anchors, sent) = (certificates(&material.anchors), sent(&material, now));
        for anchor in &anchors {
            assert!(reaches(&sent, anchor, now), "day {day}");
        }
        assert!(certificates(&material.issuer_chain).len() <= 6);
    }
    assert_eq!(certificates(&material.anchors).len(), 5);
}

#[test]
fn what_expired_is_dropped_step_by_step() {
    let mut profile = profile("cluster.local");
    let mut material = generate(&profile, start()).unwrap();
    let mut ends = vec![start() + profile.ttl];
    for day in 1..=3 {
        let now = start() + Duration::days(day);
        profile.ttl += Duration::days(10);
        material = switch(&announce(&material, &profile, now).unwrap(), now).unwrap();
        ends.push(now + profile.ttl);
    }
    let skew = profile.skew;
    for gone in 1..=3 {
        let standing = Standing::of(&material, ends[gone - 1]).unwrap();
        assert_eq!(standing.superseded_until, Some(ends[gone - 1]));
        let now = ends[gone - 1] + Duration::minutes(16);
        let before = sent(&material, now);
        assert_eq!(
            retire(&material, skew, ends[gone - 1]).unwrap().anchors,
            material.anchors,
            "clocks may be behind"
        );
        material = retire(&material, skew, now).unwrap();
        let anchors = certificates(&material.anchors);
        assert_eq!(anchors.len(), 4 - gone);
        let after = sent(&material, now);
        for anchor in &anchors {
            assert!(reaches(&before, anchor, now) && reaches(&after, anchor, now), "{gone}");
        }
        let parsed = parse(&after).unwrap();
        assert!(parsed.iter().all(|certificate| expiry(certificate) > now));
        assert!(certificates(&material.issuer_chain).len() <= 6 - gone);
    }
    assert_eq!(sent(&material, ends[2] + Duration::hours(1)).len(), 1);
    assert_eq!(Standing::of(&material, ends[2]).unwrap().superseded_until, None);
}

#[test]
fn an_issuer_that_may_not_certify_authorities_is_followed_by_anchors_only() {
    let limited = |issuer: &mut CertificateParams| issuer.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let old = supplied(&rcgen::PKCS_ED25519, start(), limited).material;
    let new = announce(&old, &profile("cluster.local"), start()).unwrap();
    assert_eq!(new.cross, "");
    let next = new.next.as_ref().unwrap();
    assert_eq!(certificates(&next.chain).len(), 1);
    let new = switch(&new, start()).unwrap();
    assert_eq!(certificates(&new.anchors).len(), 2);
    assert!(!reaches(&sent(&new, start()), &certificates(&old.anchors)[0], start()));
}

#[test]
fn a_new_root_outlives_those_that_it_joins() {
    let old = generate(&profile("cluster.local"), start()).unwrap();
    let short = Profile {
        ttl: Duration::hours(1),
        ..profile("cluster.local")
    };
    let new = rotated_with(&old, &short);
    assert_eq!(
        Standing::of(&new, start()).unwrap().expires,
        start() + Duration::days(365)
    );
}

fn rotated_with(material: &Material, profile: &Profile) -> Material {
    switch(&announce(material, profile, start()).unwrap(), start()).unwrap()
}

#[test]
fn a_pending_issuer_has_to_fit() {
    let old = generate(&profile("cluster.local"), start()).unwrap();
    let announced = announce(&old, &profile("cluster.local"), start()).unwrap();
    let unusable = |material: &Material| match Standing::of(material, start()).unwrap().pending {
        Some(Pending::Unusable(reason)) => reason,
        other => format!("{other:?}"),
    };
    // Somebody put another authority into its place.
    let replaced = Material {
        anchors: old.anchors.clone(),
        ..announced.clone()
    };
    assert!(
        unusable(&replaced).contains("the root of the next issuer is not among them"),
        "{}",
        unusable(&replaced)
    );
    assert_eq!(abandon(&replaced, start()).unwrap(), old);

    let mut other_key = announced.clone();
    other_key.next.as_mut().unwrap().key = old.issuer_key.clone();
    assert!(
        unusable(&other_key).contains("does not belong"),
        "{}",
        unusable(&other_key)
    );
    let mut broken = announced;
    broken.next.as_mut().unwrap().chain = "x".into();
    assert!(unusable(&broken).contains("no PEM block"), "{}", unusable(&broken));
    assert_eq!(abandon(&broken, start()).unwrap().next, None);
}
