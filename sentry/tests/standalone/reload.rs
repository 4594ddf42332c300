//! Material that changes while sentry serves.

use outrigger_identity::{Anchors, pem};
use time::Duration;

use crate::{
    pki::Authority,
    process::{Sentry, fails, folder_with, request},
};

/// In place of a file's text.
const ABSENT: &str = "no such file";

#[tokio::test]
async fn a_new_authority_is_swapped_in_and_a_bad_write_stops_nothing() {
    let first = Authority::new(&rcgen::PKCS_ED25519, Duration::days(2));
    let folder = tempfile::tempdir().unwrap();
    first.write(folder.path());
    let sentry = Sentry::in_folder(folder, "", &[]);
    sentry.until_ready().await;
    let anchors = Anchors::from_pem(&first.anchors).unwrap();
    let issuer = |answer: &[u8]| pem::certificates(answer).unwrap()[1].clone();

    let other = Authority::new(&rcgen::PKCS_ED25519, Duration::days(2));
    let expired = Authority::new(&rcgen::PKCS_ED25519, Duration::minutes(-1));
    let whole = [&expired.anchors, &expired.chain, &expired.key].map(String::as_str);
    let good = [&first.anchors, &first.chain, &first.key].map(String::as_str);
    for (files, text) in [
        ([good[0], good[1], "garbage"], "issuer key: no usable PEM block"),
        (
            [good[0], good[1], &other.key],
            "issuer key: it does not belong to the certificate",
        ),
        (
            [&other.anchors, good[1], good[2]],
            "is signed by none of the trust anchors",
        ),
        ([good[1], good[1], good[2]], "is not self-signed"),
        (whole, "expired at"),
        ([good[0], "", good[2]], "issuer chain: no PEM block"),
        (
            [good[0], good[1], ABSENT],
            "issuer.key: half an authority is never replaced",
        ),
    ] {
        let seen = sentry.output().len();
        for (name, file) in ["ca.crt", "issuer.crt", "issuer.key"].iter().zip(files) {
            match file {
                ABSENT => std::fs::remove_file(sentry.path(name)).unwrap(),
                file => std::fs::write(sentry.path(name), file).unwrap(),
            }
        }
        sentry
            .until(text, || async {
                let said = &sentry.output()[seen..];
                let mut lines = said.lines();
                lines.any(|line| line.contains("keeping the last good ones") && line.contains(text))
            })
            .await;
        let answer = sentry
            .sign_under(anchors.clone(), "localhost", request("cart", "shop"))
            .await
            .unwrap();
        assert_eq!(
            issuer(&answer.workload_certificate),
            pem::certificates(first.chain.as_bytes()).unwrap()[0]
        );
        assert!(sentry.health("/healthz").await.unwrap().contains("200 OK"));
        first.write(sentry.folder.path());
    }

    let second = Authority::new(&rcgen::PKCS_ECDSA_P384_SHA384, Duration::days(3));
    second.write(sentry.folder.path());
    sentry.until_logged("Issuer credentials changed; reloading").await;
    // Its own certificate follows a moment later.
    let anchors = Anchors::from_pem(&second.anchors).unwrap();
    sentry
        .until("signing under the new authority", || async {
            let signed = sentry
                .sign_under(anchors.clone(), "localhost", request("cart", "shop"))
                .await;
            signed.is_ok_and(|answer| {
                issuer(&answer.workload_certificate) == pem::certificates(second.chain.as_bytes()).unwrap()[0]
            })
        })
        .await;
    assert!(sentry.metric("dapr_sentry_issuercert_changed_total").await.unwrap() >= 1.0);
}

#[tokio::test]
async fn lifetimes_follow_the_configuration() {
    let sentry = Sentry::start(&[]);
    sentry.until_ready().await;
    let life = || async {
        let answer = sentry.sign(request("cart", "shop")).await.unwrap();
        let chain = pem::certificates(&answer.workload_certificate).unwrap();
        let (_, leaf) = x509_parser::parse_x509_certificate(&chain[0]).unwrap();
        leaf.validity().not_after.timestamp() - leaf.validity().not_before.timestamp()
    };
    assert_eq!(life().await, (24 * 60 + 15) * 60);
    std::fs::write(sentry.path("configuration.yaml"), "spec: {mtls: {workloadCertTTL: 1h}}").unwrap();
    sentry
        .until("the new lifetime", || async { life().await == 75 * 60 })
        .await;
    std::fs::write(
        sentry.path("configuration.yaml"),
        "spec: {mtls: {workloadCertTTL: -1h}}",
    )
    .unwrap();
    sentry
        .until_logged("the configuration cannot be reloaded; keeping the last good one")
        .await;
    assert_eq!(life().await, 75 * 60);
}

#[tokio::test]
async fn unusable_material_at_the_start_is_named() {
    let good = Authority::new(&rcgen::PKCS_ED25519, Duration::days(2));
    let other = Authority::new(&rcgen::PKCS_ED25519, Duration::days(2));
    let expired = Authority::new(&rcgen::PKCS_ED25519, Duration::minutes(-1));
    for (anchors, chain, key, text) in [
        (
            &good.anchors,
            &good.chain,
            &other.key,
            "issuer key: it does not belong to the certificate of CN=an issuer of one's own",
        ),
        (
            &other.anchors,
            &good.chain,
            &good.key,
            "is signed by none of the trust anchors",
        ),
        (&expired.anchors, &expired.chain, &expired.key, "expired at"),
        (&good.anchors, &good.anchors, &good.key, "the issuer is self-signed"),
    ] {
        let folder = folder_with(&[("ca.crt", anchors), ("issuer.crt", chain), ("issuer.key", key)]);
        let (code, output) = fails(folder, "", &[]).await;
        assert_eq!(code, Some(1), "{output}");
        assert!(output.contains(text), "{text}: {output}");
    }
    let (code, output) = fails(
        folder_with(&[("ca.crt", &good.anchors), ("issuer.key", &good.key)]),
        "",
        &[],
    )
    .await;
    assert_eq!(code, Some(1), "{output}");
    assert!(
        output.contains("but not") && output.contains("issuer.crt: half an authority"),
        "{output}"
    );
}
