//! A certificate authority for a test cluster, with the certificates that Kubernetes programs need.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256, RsaKeySize,
};
use time::{Duration, OffsetDateTime};

/// A failure of the certificate library.
#[derive(Debug, thiserror::Error)]
#[error("could not make the certificate of {subject}")]
pub struct Error {
    subject: String,
    source: rcgen::Error,
}

/// A certificate authority that lives as long as one test cluster.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate and its key, PEM.
#[derive(Clone, Debug)]
pub struct Pair {
    pub certificate: String,
    pub key: String,
}

impl Authority {
    /// A new authority, valid for a year.
    pub fn new(name: &str) -> Result<Self, Error> {
        let make = || {
            let mut params = template(name, None);
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
            CertifiedIssuer::self_signed(params, KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?)
        };
        make().map(|issuer| Self { issuer }).map_err(|source| Error {
            subject: name.to_owned(),
            source,
        })
    }

    /// The authority's certificate, PEM.
    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// The authority's key, PEM; the controller manager signs with it.
    pub fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// A client certificate. Kubernetes reads the common name as user and the organisation as group; the certificate
    /// library writes one organisation at most.
    pub fn client(&self, user: &str, group: Option<&str>) -> Result<Pair, Error> {
        self.leaf(user, group, &[])
    }

    /// A certificate that serves these host names and addresses, and is a client's as well.
    pub fn server(&self, name: &str, group: Option<&str>, hosts: &[&str]) -> Result<Pair, Error> {
        self.leaf(name, group, hosts)
    }

    fn leaf(&self, name: &str, group: Option<&str>, hosts: &[&str]) -> Result<Pair, Error> {
        let make = || {
            let mut params = template(name, group);
            params.subject_alt_names =
                CertificateParams::new(hosts.iter().copied().map(String::from).collect::<Vec<_>>())?.subject_alt_names;
            params.use_authority_key_identifier_extension = true;
            params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            if !hosts.is_empty() {
                params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
            }
            let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
            let certificate = params.signed_by(&key, &self.issuer)?;
            Ok(Pair {
                certificate: certificate.pem(),
                key: key.serialize_pem(),
            })
        };
        make().map_err(|source| Error {
            subject: name.to_owned(),
            source,
        })
    }
}

impl Pair {
    /// Writes `NAME.crt` and `NAME.key`, readable by the owner only, and returns their paths.
    pub fn write(&self, folder: &Path, name: &str) -> io::Result<(PathBuf, PathBuf)> {
        let (certificate, key) = (folder.join(format!("{name}.crt")), folder.join(format!("{name}.key")));
        write_private(&certificate, &self.certificate)?;
        write_private(&key, &self.key)?;
        Ok((certificate, key))
    }
}

/// An RSA key, PEM, for service account tokens: RS256 is what clusters sign them with, so token consumers meet it here.
pub fn service_account_key() -> Result<String, Error> {
    KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048)
        .map(|key| key.serialize_pem())
        .map_err(|source| Error {
            subject: "service accounts".to_owned(),
            source,
        })
}

/// Writes a file that only its owner can read, replacing an existing one.
pub fn write_private(path: &Path, content: &str) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?
        .write_all(content.as_bytes())
}

fn template(name: &str, group: Option<&str>) -> CertificateParams {
    let now = OffsetDateTime::now_utc();
    let mut params = CertificateParams::default();
    // The library's defaults are the years 1975 to 4096 and a name of its own.
    params.not_before = now - Duration::minutes(5);
    params.not_after = now + Duration::days(365);
    params.distinguished_name = DistinguishedName::new();
    if let Some(group) = group {
        params.distinguished_name.push(DnType::OrganizationName, group);
    }
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_private_and_replaced() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().expect("temporary folder");
        let authority = Authority::new("test").expect("authority");
        for _ in 0..2 {
            let pair = authority.client("admin", Some("system:masters")).expect("certificate");
            let (certificate, key) = pair.write(folder.path(), "admin").expect("written");
            assert_eq!(fs::metadata(&key).expect("key").permissions().mode() & 0o777, 0o600);
            assert_eq!(fs::read_to_string(certificate).expect("certificate"), pair.certificate);
        }
    }
}
