//! Follows the control plane's Configuration: lifetimes at once, the JWKS validator where tokens of Kubernetes are accepted as well.

use std::{sync::Arc, time::Duration};

use outrigger_core::{SpiffeId, TrustDomain};
use outrigger_identity::Changes;
use outrigger_process::health::Health;
use tokio_util::sync::CancellationToken;

use crate::{
    settings::{Configured, LiveSettings, Source},
    validate::{JwksOptions, JwksValidator, Validators},
};

/// How often the Configuration is looked at.
const REFRESH: Duration = Duration::from_secs(30);

/// Applies what a Configuration says.
pub(crate) struct Follower {
    pub(crate) source: Source,
    pub(crate) settings: LiveSettings,
    pub(crate) validators: Arc<Validators>,
    pub(crate) id: SpiffeId,
    pub(crate) health: Health,
    applied: Configured,
    /// Ends the task behind the JWKS validator.
    running: Option<CancellationToken>,
}

impl Follower {
    /// Applies what was loaded first.
    pub(crate) fn new(
        (source, configured): (Source, Configured),
        settings: LiveSettings,
        validators: Arc<Validators>,
        id: SpiffeId,
        health: Health,
        stop: &CancellationToken,
    ) -> Self {
        let mut follower = Self {
            source,
            settings,
            validators,
            id,
            health,
            applied: Configured::default(),
            running: None,
        };
        follower.warn_about_the_trust_domain(&configured);
        follower.start_jwks(configured.jwks.clone(), stop);
        follower.applied = configured;
        follower
    }

    /// Until `stop`. A Configuration that cannot be read or used changes nothing.
    pub(crate) async fn follow(mut self, stop: CancellationToken) {
        let file = match &self.source {
            Source::File(path) => Some(std::path::PathBuf::from(path)),
            Source::Kubernetes { .. } => None,
        };
        let mut changes = Changes::of(file.as_deref());
        let mut failing = None;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = changes.any(REFRESH) => {}
            }
            match self.source.load().await {
                Ok(configured) => {
                    failing = None;
                    self.apply(configured, &stop);
                }
                Err(error) => {
                    let error = format!("{error:#}");
                    // Each reason is logged once, not with every look.
                    if failing.as_ref() != Some(&error) {
                        tracing::error!(error, "the configuration cannot be reloaded; keeping the last good one");
                        failing = Some(error);
                    }
                }
            }
        }
    }

    fn apply(&mut self, configured: Configured, stop: &CancellationToken) {
        if configured.settings != self.applied.settings {
            tracing::info!(ttl = %configured.settings.ttl, skew = %configured.settings.skew, "lifetimes of certificates changed");
            self.settings.set(configured.settings);
        }
        if configured.trust_domain != self.applied.trust_domain {
            self.warn_about_the_trust_domain(&configured);
        }
        if configured.jwks != self.applied.jwks {
            if self.validators.kubernetes.is_some() {
                self.start_jwks(configured.jwks.clone(), stop);
            } else {
                // Without it everybody would get what they ask for, which has to be somebody's decision at a start.
                tracing::warn!(
                    "spec.mtls.tokenValidators changed; without Kubernetes that takes effect at the next start"
                );
            }
        }
        self.applied = configured;
    }

    fn start_jwks(&mut self, options: Option<JwksOptions>, stop: &CancellationToken) {
        if let Some(running) = self.running.take() {
            running.cancel();
        }
        let Some(options) = options else {
            if self.validators.jwks.swap(None).is_some() {
                tracing::info!("the JWKS validator is off");
            }
            return;
        };
        let validator = Arc::new(JwksValidator::new(&self.id));
        // Pods do not wait for an issuer of tokens that they do not use.
        let alone = self.validators.kubernetes.is_none();
        let target = alone.then(|| self.health.target("sentry-jwks-validator"));
        let token = stop.child_token();
        tokio::spawn(validator.follow(options, target, token.clone()));
        self.running = Some(token);
        self.validators.jwks.store(Some(validator));
        tracing::info!("the JWKS validator is on");
    }

    fn warn_about_the_trust_domain(&self, configured: &Configured) {
        let differs = |domain: &String| TrustDomain::new(domain).ok().as_ref() != Some(self.id.trust_domain());
        if let Some(domain) = configured.trust_domain.as_ref().filter(|domain| differs(domain)) {
            tracing::warn!(
                configured = domain,
                used = %self.id.trust_domain(),
                "spec.mtls.controlPlaneTrustDomain differs from --trust-domain, which wins"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::validate::InsecureValidator;

    const ID: &str = "spiffe://cluster.local/ns/dapr-system/dapr-sentry";

    #[tokio::test]
    async fn lifetimes_change_and_the_insecure_validator_never_appears_by_itself() {
        let (settings, stop) = (
            LiveSettings::new(Configured::default().settings),
            CancellationToken::new(),
        );
        let validators = Arc::new(Validators {
            insecure: None::<InsecureValidator>,
            ..Validators::default()
        });
        let file = tempfile::NamedTempFile::new().unwrap();
        let jwks = r#"{"keys":[{"kty":"oct","k":"AA","kid":"a"}]}"#;
        let yaml = |ttl: &str| {
            format!(
                "spec: {{mtls: {{workloadCertTTL: {ttl}, tokenValidators: [{{name: jwks, options: {{source: '{jwks}'}}}}]}}}}"
            )
        };
        std::fs::write(file.path(), yaml("1h")).unwrap();
        let source = Source::File(file.path().display().to_string());
        let first = source.load().await.unwrap();
        let mut follower = Follower::new(
            (source, first.clone()),
            settings.clone(),
            validators.clone(),
            ID.parse().unwrap(),
            Health::default(),
            &stop,
        );
        assert!(validators.jwks.load().is_some());

        std::fs::write(file.path(), yaml("2h")).unwrap();
        let second = follower.source.load().await.unwrap();
        follower.apply(second, &stop);
        assert_eq!(settings.get().ttl, time::Duration::hours(2));

        follower.apply(Configured::default(), &stop);
        assert!(validators.jwks.load().is_some(), "not without a restart");
        stop.cancel();
    }
}
