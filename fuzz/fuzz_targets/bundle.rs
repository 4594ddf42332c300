//! Trust anchors and authorities from files and Secrets that people edit, and certificates that peers show.
#![no_main]

use libfuzzer_sys::fuzz_target;
use outrigger_identity::{Anchors, pem, spiffe_id_of};
use outrigger_sentry::ca::{Authority, Material, NextIssuer, Standing, abandon, retire, switch};
use rustls_pki_types::CertificateDer;
use time::{Duration, OffsetDateTime};

/// Within the validity of the seeds.
const NOW: i64 = 1_800_000_000;

fuzz_target!(|data: &[u8]| {
    if let Ok(certificates) = pem::certificates(data) {
        assert_eq!(pem::certificates(pem::encode(&certificates).as_bytes()), Ok(certificates));
    }
    // A peer's certificate comes as DER, without any PEM around it.
    let der = CertificateDer::from(data.to_vec());
    let _ = spiffe_id_of(&der);
    let _ = Anchors::from_pem(&pem::encode([&der]));

    let Ok(text) = std::str::from_utf8(data) else { return };
    let _ = Anchors::from_pem(text);
    // Anchors, chain and key, then cross certificates, and an announced issuer's chain and key, with a zero between them.
    let mut parts = text.splitn(6, '\0').map(str::to_owned);
    let (Some(anchors), Some(issuer_chain), Some(issuer_key)) = (parts.next(), parts.next(), parts.next()) else {
        return;
    };
    let cross = parts.next().unwrap_or_default();
    let next = parts.next().zip(parts.next());
    let material = Material {
        anchors,
        issuer_chain,
        issuer_key,
        cross,
        next: next.map(|(chain, key)| NextIssuer { chain, key }),
    };
    let now = OffsetDateTime::from_unix_timestamp(NOW).expect("a constant");
    let usable = Authority::load(&material, now).is_ok();
    let standing = Standing::of(&material, now);
    assert!(standing.is_ok() || !usable, "what can sign can be judged");
    // Whatever is stored after a step can sign.
    if let Ok(switched) = switch(&material, now) {
        assert!(Authority::load(&switched, now).is_ok());
    }
    if let Ok(retired) = retire(&material, Duration::minutes(15), now) {
        assert!(Authority::load(&retired, now).is_ok());
    }
    let _ = abandon(&material, now);
});
