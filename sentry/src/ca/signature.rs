//! Signatures of certificates and of requests for them: every combination of key and hash that clients send. The X.509 library knows
//! neither P-521 nor SHA-512 with ECDSA.

use aws_lc_rs::signature::{self, UnparsedPublicKey, VerificationAlgorithm};
use x509_parser::{
    certification_request::X509CertificationRequest,
    prelude::X509Certificate,
    signature_algorithm::RsaSsaPssParams,
    x509::{AlgorithmIdentifier, SubjectPublicKeyInfo},
};

/// Whether `child` carries a signature of `parent`'s key. Authorities do not sign with SHA-1 any more.
pub(super) fn certificate_is_signed_by(child: &X509Certificate<'_>, parent: &X509Certificate<'_>) -> bool {
    let algorithm = choose(&child.signature_algorithm, parent.public_key(), false);
    verifies(
        algorithm,
        parent.public_key(),
        child.tbs_certificate.as_ref(),
        &child.signature_value.data,
    )
}

/// Whether the sender of a request holds its key.
pub(super) fn request_is_signed(request: &X509CertificationRequest<'_>) -> bool {
    let info = &request.certification_request_info;
    let algorithm = choose(&request.signature_algorithm, &info.subject_pki, true);
    verifies(algorithm, &info.subject_pki, info.raw, &request.signature_value.data)
}

fn verifies(
    algorithm: Option<&'static dyn VerificationAlgorithm>,
    key: &SubjectPublicKeyInfo<'_>,
    message: &[u8],
    signature: &[u8],
) -> bool {
    algorithm.is_some_and(|algorithm| {
        UnparsedPublicKey::new(algorithm, &key.subject_public_key.data)
            .verify(message, signature)
            .is_ok()
    })
}

/// By object identifier of the signature, and for ECDSA of the key's curve.
fn choose(
    algorithm: &AlgorithmIdentifier<'_>,
    key: &SubjectPublicKeyInfo<'_>,
    allow_sha1: bool,
) -> Option<&'static dyn VerificationAlgorithm> {
    Some(match algorithm.algorithm.to_id_string().as_str() {
        "1.2.840.113549.1.1.5" | "1.3.14.3.2.29" if allow_sha1 => {
            &signature::RSA_PKCS1_1024_8192_SHA1_FOR_LEGACY_USE_ONLY
        }
        "1.2.840.113549.1.1.11" => &signature::RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY,
        "1.2.840.113549.1.1.12" => &signature::RSA_PKCS1_2048_8192_SHA384,
        "1.2.840.113549.1.1.13" => &signature::RSA_PKCS1_1024_8192_SHA512_FOR_LEGACY_USE_ONLY,
        "1.2.840.113549.1.1.10" => {
            let parameters = RsaSsaPssParams::try_from(algorithm.parameters.as_ref()?).ok()?;
            match parameters.hash_algorithm_oid().to_id_string().as_str() {
                "2.16.840.1.101.3.4.2.1" => &signature::RSA_PSS_2048_8192_SHA256,
                "2.16.840.1.101.3.4.2.2" => &signature::RSA_PSS_2048_8192_SHA384,
                "2.16.840.1.101.3.4.2.3" => &signature::RSA_PSS_2048_8192_SHA512,
                _ => return None,
            }
        }
        "1.3.101.112" => &signature::ED25519,
        ecdsa => {
            let curve = key.algorithm.parameters.as_ref()?.as_oid().ok()?.to_id_string();
            match (curve.as_str(), ecdsa) {
                ("1.2.840.10045.3.1.7", "1.2.840.10045.4.1") if allow_sha1 => &signature::ECDSA_P256_SHA1_ASN1,
                ("1.2.840.10045.3.1.7", "1.2.840.10045.4.3.2") => &signature::ECDSA_P256_SHA256_ASN1,
                ("1.2.840.10045.3.1.7", "1.2.840.10045.4.3.3") => &signature::ECDSA_P256_SHA384_ASN1,
                ("1.2.840.10045.3.1.7", "1.2.840.10045.4.3.4") => &signature::ECDSA_P256_SHA512_ASN1,
                ("1.3.132.0.34", "1.2.840.10045.4.3.2") => &signature::ECDSA_P384_SHA256_ASN1,
                ("1.3.132.0.34", "1.2.840.10045.4.3.3") => &signature::ECDSA_P384_SHA384_ASN1,
                ("1.3.132.0.34", "1.2.840.10045.4.3.4") => &signature::ECDSA_P384_SHA512_ASN1,
                ("1.3.132.0.35", "1.2.840.10045.4.3.2") => &signature::ECDSA_P521_SHA256_ASN1,
                ("1.3.132.0.35", "1.2.840.10045.4.3.3") => &signature::ECDSA_P521_SHA384_ASN1,
                ("1.3.132.0.35", "1.2.840.10045.4.3.4") => &signature::ECDSA_P521_SHA512_ASN1,
                _ => return None,
            }
        }
    })
}
