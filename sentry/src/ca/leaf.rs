//! Workload certificates: upstream's profile, nothing taken from the request but its key.

use outrigger_core::SpiffeId;
use outrigger_identity::pem;
use rcgen::{
    CertificateParams, CustomExtension, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, SanType,
    string::Ia5String,
};
use serde::Serialize;
use time::{Duration, OffsetDateTime};

use super::{Authority, PublicKey, certify::tlv, serial};

/// Object id of the extension that lists a pod's container images.
const IMAGES_OID: &[u64] = &[1, 3, 6, 1, 4, 1, 57683, 100, 1];

/// Tag of an OCTET STRING.
const OCTET_STRING: u8 = 0x04;

/// What a certificate says.
#[derive(Debug, Clone)]
pub struct Leaf {
    pub id: SpiffeId,
    pub dns_names: Vec<String>,
    /// Lifetime after now.
    pub ttl: Duration,
    /// Backdating, for clocks that are behind.
    pub skew: Duration,
    pub images: Vec<ContainerImage>,
}

/// One entry of the images extension.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerImage {
    /// `daprd` or `app`.
    pub role: &'static str,
    pub container_name: String,
    /// As the pod's spec names it.
    pub image: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub digest: String,
}

/// A signed certificate.
#[derive(Debug, Clone)]
pub struct Signed {
    /// PEM: leaf, then the issuer chain.
    pub chain_pem: String,
    pub not_after: OffsetDateTime,
}

/// Why a certificate could not be signed.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    #[error("the issuer's certificate expired at {0}")]
    Expired(OffsetDateTime),
    #[error("name {0:?} is not ASCII")]
    Name(String),
    #[error("images extension")]
    Images(#[source] serde_json::Error),
    #[error("certificate")]
    Certificate(#[from] rcgen::Error),
}

impl Authority {
    /// Signs `leaf` for `key`. The certificate never outlives the issuer.
    ///
    /// # Errors
    /// An issuer that has expired, or names that a certificate cannot carry.
    pub fn sign(&self, leaf: &Leaf, key: &PublicKey, now: OffsetDateTime) -> Result<Signed, SignError> {
        if self.not_after() <= now {
            return Err(SignError::Expired(self.not_after()));
        }
        let mut params = CertificateParams::default();
        params.not_before = now - leaf.skew;
        params.not_after = (now + leaf.ttl).min(self.not_after());
        params.serial_number = Some(serial()?);
        // An empty subject makes the alternative names critical, as they should be.
        params.distinguished_name = DistinguishedName::new();
        params.is_ca = IsCa::NoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.subject_alt_names = vec![SanType::URI(ascii(&leaf.id.to_string())?)];
        for name in &leaf.dns_names {
            params.subject_alt_names.push(SanType::DnsName(ascii(name)?));
        }
        if !leaf.images.is_empty() {
            let json = serde_json::to_vec(&leaf.images).map_err(SignError::Images)?;
            params
                .custom_extensions
                .push(CustomExtension::from_oid_content(IMAGES_OID, tlv(OCTET_STRING, &json)));
        }
        let not_after = params.not_after;
        let certificate = self.certify(params, &key.0)?;
        let mut chain_pem = String::new();
        pem::block("CERTIFICATE", &certificate, &mut chain_pem);
        chain_pem.push_str(self.chain_pem());
        Ok(Signed { chain_pem, not_after })
    }
}

fn ascii(name: &str) -> Result<Ia5String, SignError> {
    Ia5String::try_from(name).map_err(|_| SignError::Name(name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ca::{
        generate,
        testing::{leaf, profile, public_key},
    };
    use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

    fn authority(now: OffsetDateTime) -> Authority {
        Authority::load(&generate(&profile("cluster.local"), now).unwrap(), now).unwrap()
    }

    fn sign(leaf: &Leaf) -> (Signed, Vec<u8>) {
        let now = OffsetDateTime::now_utc();
        let signed = authority(now).sign(leaf, &public_key(), now).unwrap();
        let (_, block) = x509_parser::pem::parse_x509_pem(signed.chain_pem.as_bytes()).unwrap();
        (signed, block.contents)
    }

    #[test]
    fn follows_the_profile() {
        let (signed, der) = sign(&leaf(Duration::hours(24)));
        let (_, certificate) = X509Certificate::from_der(&der).unwrap();
        assert_eq!(certificate.subject().iter().count(), 0);
        assert!(certificate.basic_constraints().unwrap().is_none());
        let usage = certificate.key_usage().unwrap().unwrap();
        assert!(usage.critical && usage.value.flags == 1, "digitalSignature only");
        let purposes = certificate.extended_key_usage().unwrap().unwrap();
        assert!(purposes.value.server_auth && purposes.value.client_auth && !purposes.critical);
        let names = certificate.subject_alternative_name().unwrap().unwrap();
        assert!(names.critical);
        assert_eq!(
            names.value.general_names,
            [GeneralName::URI("spiffe://public/ns/shop/cart")]
        );
        assert_eq!(
            signed.chain_pem.matches("BEGIN CERTIFICATE").count(),
            2,
            "leaf and issuer, no root"
        );
        let validity = certificate.validity();
        assert_eq!(
            (validity.not_after.to_datetime() - validity.not_before.to_datetime()),
            Duration::minutes(24 * 60 + 15)
        );
    }

    #[test]
    fn never_outlives_the_issuer() {
        let now = OffsetDateTime::now_utc();
        let authority = authority(now);
        let sign = |now| authority.sign(&leaf(Duration::days(1000)), &public_key(), now);
        assert_eq!(sign(now).unwrap().not_after, authority.not_after());
        assert!(matches!(sign(authority.not_after()), Err(SignError::Expired(_))));
    }

    #[test]
    fn lists_images_as_an_octet_string_of_json() {
        let image = ContainerImage {
            role: "app",
            container_name: "main".into(),
            image: "shop:1".into(),
            digest: String::new(),
        };
        let (_, der) = sign(&Leaf {
            images: vec![image],
            ..leaf(Duration::hours(1))
        });
        let (_, certificate) = X509Certificate::from_der(&der).unwrap();
        let extension = certificate
            .extensions()
            .iter()
            .find(|e| e.oid.to_id_string() == "1.3.6.1.4.1.57683.100.1")
            .unwrap();
        assert!(!extension.critical);
        assert_eq!(
            &extension.value[2..],
            br#"[{"role":"app","containerName":"main","image":"shop:1"}]"#
        );
        assert_eq!(extension.value[0], 4);
        assert_eq!(tlv(OCTET_STRING, &[7; 300])[..4], [4, 0x82, 1, 44]);
    }
}
