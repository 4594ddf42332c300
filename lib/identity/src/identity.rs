//! The live identity: the newest certificate and anchors, and the servers and clients that follow them.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwapOption;
use outrigger_core::TrustDomain;
use tokio::sync::watch;
use tonic::transport::Channel;

use crate::{
    anchors::{AnchorSource, Anchors},
    channel,
    error::Error,
    files::AnchorsFollower,
    jwt::{JwtSvid, JwtUnavailable},
    key::KeyAlgorithm,
    renewal::Renewal,
    sentry::{Issuer, SentryClient},
    svid::Svid,
    tls::{ClientAuth, ClientTls, ServerTls},
    verify::Expect,
};

/// What a process needs to know to get its identity.
#[derive(Debug, Clone)]
pub struct Options {
    /// Trust domain of the control plane.
    pub trust_domain: TrustDomain,
    /// Namespace of the control plane.
    pub control_plane_namespace: String,
    /// The app id to ask for.
    pub app_id: String,
    /// The namespace to ask for.
    pub namespace: String,
    /// `host:port` of sentry.
    pub sentry_address: String,
    pub anchors: AnchorSource,
    pub key: KeyAlgorithm,
    /// Whether the process runs in Kubernetes, which decides where tokens come from.
    pub kubernetes: bool,
    /// Audiences of the JWT-SVIDs to ask for.
    pub jwt_audiences: Vec<String>,
}

/// One state of the identity. Replaced whole.
#[derive(Debug)]
pub(crate) struct Material {
    pub(crate) svid: Arc<Svid>,
    pub(crate) anchors: Arc<Anchors>,
}

/// The live identity; clones share it.
#[derive(Clone)]
pub struct Identity {
    shared: Arc<Shared>,
}

struct Shared {
    material: ArcSwapOption<Material>,
    installed: watch::Sender<Option<Arc<Svid>>>,
    anchors: watch::Sender<Arc<Anchors>>,
}

impl Identity {
    /// An identity from sentry. Nothing happens before [`Renewal::run`].
    ///
    /// # Errors
    /// Trust anchors or names that cannot be used.
    pub fn new(options: Options) -> Result<(Self, Renewal), Error> {
        let issuer = SentryClient::new(&options)?;
        Self::with_issuer(options.anchors, options.key, Arc::new(issuer))
    }

    /// An identity from another issuer: sentry's own, or a test's.
    ///
    /// # Errors
    /// Trust anchors that cannot be used.
    pub fn with_issuer(
        anchors: AnchorSource,
        key: KeyAlgorithm,
        issuer: Arc<dyn Issuer>,
    ) -> Result<(Self, Renewal), Error> {
        let (initial, follower) = AnchorsFollower::new(anchors)?;
        let shared = Shared {
            material: ArcSwapOption::empty(),
            installed: watch::Sender::new(None),
            anchors: watch::Sender::new(initial),
        };
        let identity = Self {
            shared: Arc::new(shared),
        };
        let renewal = Renewal::new(identity.clone(), key, issuer, follower);
        Ok((identity, renewal))
    }

    /// Waits for the first certificate.
    pub async fn ready(&self) {
        // Cannot fail: `self` keeps the sender alive.
        let _ = self.shared.installed.subscribe().wait_for(Option::is_some).await;
    }

    /// The newest certificate; `None` before the first one.
    pub fn svid(&self) -> Option<Arc<Svid>> {
        self.shared.installed.borrow().clone()
    }

    /// A JWT-SVID for an audience; waits for the first certificate. Upstream's components and MCP servers use these.
    ///
    /// # Errors
    /// When sentry issues none, or none for this audience.
    pub async fn jwt_svid(&self, audience: &str) -> Result<JwtSvid, JwtUnavailable> {
        self.ready().await;
        let svid = self.svid().ok_or(JwtUnavailable::NotIssued)?;
        svid.jwts().get(audience, SystemTime::now())
    }

    /// Trust anchors, now and after each change. With a file that does not exist yet the text is empty.
    pub fn anchors(&self) -> watch::Receiver<Arc<Anchors>> {
        self.shared.anchors.subscribe()
    }

    /// TLS for a server, which follows every rotation.
    pub fn server_tls(&self, auth: ClientAuth, alpn: &[&[u8]]) -> ServerTls {
        ServerTls::new(self.clone(), auth, alpn)
    }

    /// A channel that connects with mTLS when it is used, and again after each failure. Keepalive is as slow as upstream's
    /// control plane demands.
    ///
    /// # Errors
    /// When the address is not `host:port`.
    pub fn channel(&self, address: &str, expect: Expect) -> Result<Channel, Error> {
        self.channel_with_keepalive(address, expect, channel::SLOW_KEEPALIVE)
    }

    /// As [`Identity::channel`], with the interval of pings on busy connections.
    ///
    /// # Errors
    /// When the address is not `host:port`.
    pub fn channel_with_keepalive(&self, address: &str, expect: Expect, interval: Duration) -> Result<Channel, Error> {
        channel::lazy(address, ClientTls::new(self.clone(), expect), interval)
    }

    pub(crate) fn material(&self) -> Option<Arc<Material>> {
        self.shared.material.load_full()
    }

    pub(crate) fn current_anchors(&self) -> Arc<Anchors> {
        self.shared.anchors.borrow().clone()
    }

    pub(crate) fn install_svid(&self, svid: Arc<Svid>) {
        self.shared.material.store(Some(Arc::new(Material {
            svid: svid.clone(),
            anchors: self.current_anchors(),
        })));
        self.shared.installed.send_replace(Some(svid));
    }

    /// New handshakes use the new set at once; open connections stay.
    pub(crate) fn install_anchors(&self, anchors: Arc<Anchors>) {
        if let Some(svid) = self.svid() {
            self.shared.material.store(Some(Arc::new(Material {
                svid,
                anchors: anchors.clone(),
            })));
        }
        self.shared.anchors.send_replace(anchors);
    }
}
