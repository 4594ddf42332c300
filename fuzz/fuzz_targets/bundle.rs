//! Trust anchors and authorities from files and Secrets that people edit, and certificates that peers show.
#![no_main]

use libfuzzer_sys::fuzz_target;
use outrigger_identity::{Anchors, pem, spiffe_id_of};
use outrigger_sentry::ca::{Authority, Material};
use rustls_pki_types::CertificateDer;
use time::OffsetDateTime;

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
    // Anchors, chain and key, with a zero between them.
    let mut parts = text.splitn(3, '\0').map(str::to_owned);
    if let (Some(anchors), Some(issuer_chain), Some(issuer_key)) = (parts.next(), parts.next(), parts.next()) {
        let material = Material {
            anchors,
            issuer_chain,
            issuer_key,
        };
        let now = OffsetDateTime::from_unix_timestamp(NOW).expect("a constant");
        let _ = Authority::load(&material, now);
    }
});
