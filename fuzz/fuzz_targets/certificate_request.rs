//! What anybody may send to sentry as a certificate request.
#![no_main]

use libfuzzer_sys::fuzz_target;
use outrigger_identity::pem;
use outrigger_sentry::ca::PublicKey;
use rustls_pki_types::CertificateDer;

fuzz_target!(|data: &[u8]| {
    let _ = PublicKey::from_request(data);
    // The same bytes as DER: base64 would stop most changes at the door.
    let block = pem::encode([&CertificateDer::from(data.to_vec())]);
    // Requests under this label are accepted, too.
    let _ = PublicKey::from_request(block.as_bytes());
});
