//! Authorities that somebody brings along.

use outrigger_identity::pem;
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, SignatureAlgorithm};
use time::{Duration, OffsetDateTime};
use x509_parser::{
    asn1_rs::Any,
    prelude::{FromDer, X509Certificate},
};

use super::{
    Authority, Material, signature,
    testing::{self, Supplied},
};

fn supplied(algorithm: &'static SignatureAlgorithm, change: impl FnOnce(&mut CertificateParams)) -> Supplied {
    testing::supplied(algorithm, OffsetDateTime::now_utc(), change)
}

/// The first certificate of a chain that the authority signs.
fn leaf(authority: &Authority) -> Vec<u8> {
    testing::signed(authority, OffsetDateTime::now_utc())[0].to_vec()
}

fn pem(label: &str, der: &[u8]) -> String {
    let mut text = String::new();
    pem::block(label, der, &mut text);
    text
}

fn load(material: &Material) -> Result<Authority, String> {
    Authority::load(material, OffsetDateTime::now_utc()).map_err(|error| error.to_string())
}

fn is_signed_by(leaf: &[u8], issuer_pem: &str) -> bool {
    let (_, issuer) = x509_parser::pem::parse_x509_pem(issuer_pem.as_bytes()).unwrap();
    let (_, issuer) = X509Certificate::from_der(&issuer.contents).unwrap();
    let (_, leaf) = X509Certificate::from_der(leaf).unwrap();
    assert_eq!(
        leaf.issuer().as_raw(),
        issuer.subject().as_raw(),
        "the name, byte by byte"
    );
    signature::certificate_is_signed_by(&leaf, &issuer)
}

#[test]
fn every_kind_of_key_signs_with_its_own_hash() {
    for (algorithm, oid) in [
        (&rcgen::PKCS_ED25519, "1.3.101.112"),
        (&rcgen::PKCS_ECDSA_P256_SHA256, "1.2.840.10045.4.3.2"),
        (&rcgen::PKCS_ECDSA_P384_SHA384, "1.2.840.10045.4.3.3"),
        (&rcgen::PKCS_ECDSA_P521_SHA512, "1.2.840.10045.4.3.4"),
        (&rcgen::PKCS_RSA_SHA256, "1.2.840.113549.1.1.11"),
    ] {
        let supplied = supplied(algorithm, |_| {});
        let der = leaf(&load(&supplied.material).unwrap());
        let (_, parsed) = X509Certificate::from_der(&der).unwrap();
        assert_eq!(parsed.signature_algorithm.algorithm.to_id_string(), oid);
        assert!(is_signed_by(&der, &supplied.material.issuer_chain), "{oid}");
    }
}

#[test]
fn keys_in_their_older_forms_are_read() {
    for (algorithm, label) in [
        (&rcgen::PKCS_RSA_SHA256, "RSA PRIVATE KEY"),
        (&rcgen::PKCS_ECDSA_P256_SHA256, "EC PRIVATE KEY"),
    ] {
        let supplied = supplied(algorithm, |_| {});
        // PKCS#8 is a version, an algorithm, and the older form in an octet string.
        let pkcs8 = supplied.key.serialize_der();
        let mut rest = Any::from_der(&pkcs8).unwrap().1.data;
        for _ in 0..2 {
            rest = Any::from_der(rest).unwrap().0;
        }
        let older = Any::from_der(rest).unwrap().1.data;
        let material = Material {
            issuer_key: pem(label, older),
            ..supplied.material
        };
        assert!(
            is_signed_by(&leaf(&load(&material).unwrap()), &material.issuer_chain),
            "{label}"
        );
    }
}

#[test]
fn names_that_repeat_a_part_stay_as_they_are() {
    let supplied = supplied(&rcgen::PKCS_ECDSA_P256_SHA256, |issuer| {
        // The same attribute a second time.
        let again = DnType::CustomDnType(vec![2, 5, 4, 10]);
        issuer
            .distinguished_name
            .push(again, rcgen::DnValue::PrintableString("Unit".try_into().unwrap()));
    });
    let der = leaf(&load(&supplied.material).unwrap());
    assert!(is_signed_by(&der, &supplied.material.issuer_chain));
    let (_, parsed) = X509Certificate::from_der(&der).unwrap();
    assert_eq!(parsed.issuer().to_string(), "O=Shop issuer, O=Unit");
}

#[test]
fn what_cannot_work_is_refused_in_a_sentence() {
    let algorithm = &rcgen::PKCS_ED25519;
    let purposes = |purpose: ExtendedKeyUsagePurpose| {
        supplied(algorithm, |issuer| issuer.extended_key_usages = vec![purpose]).material
    };
    assert!(load(&purposes(ExtendedKeyUsagePurpose::ServerAuth)).is_ok());
    assert!(load(&purposes(ExtendedKeyUsagePurpose::Any)).is_ok());
    let other = supplied(algorithm, |_| {}).material;
    let good = supplied(algorithm, |_| {}).material;
    for (material, text) in [
        (purposes(ExtendedKeyUsagePurpose::ClientAuth), "lacks serverAuth"),
        (
            supplied(algorithm, |issuer| {
                issuer.key_usages = vec![KeyUsagePurpose::DigitalSignature];
            })
            .material,
            "may not sign",
        ),
        (
            supplied(algorithm, |issuer| issuer.is_ca = IsCa::NoCa).material,
            "may not sign",
        ),
        (
            supplied(algorithm, |issuer| {
                issuer.not_after = OffsetDateTime::now_utc() - Duration::minutes(1);
            })
            .material,
            "O=Shop issuer expired at",
        ),
        (
            Material {
                issuer_chain: format!("{}{}", good.issuer_chain, other.issuer_chain),
                ..good.clone()
            },
            "O=Shop issuer is not signed by O=Shop issuer, the next certificate of the file",
        ),
        (
            Material {
                issuer_key: pem("ENCRYPTED PRIVATE KEY", b"x"),
                ..good.clone()
            },
            "issuer key: no usable PEM block",
        ),
        (
            Material {
                issuer_key: pem("PRIVATE KEY", b"x"),
                ..good.clone()
            },
            "issuer key: unsupported kind of key or encoding",
        ),
    ] {
        let reason = load(&material).err().expect("refused");
        assert!(reason.contains(text), "{reason}");
    }
}
