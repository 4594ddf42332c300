//! A fake sidecar: one mTLS connection with the seven update streams of a sidecar. HTTP/2 by hand, since thousands of them
//! share the machine with what they measure.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Instant,
};

use anyhow::{Context as _, ensure};
use bytes::{Buf, Bytes, BytesMut};
use h2::{RecvStream, client::SendRequest};
use outrigger_core::{SpiffeId, TrustDomain, control_plane::PUBLIC_TRUST_DOMAIN};
use outrigger_proto::operator::{self as proto, ListComponentsRequest};
use outrigger_testkit::{Anyone, Workloads};
use prost::Message;
use rustls::{
    CipherSuite, ClientConfig, SupportedCipherSuite,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    task::JoinHandle,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

const SERVICE: &str = "/dapr.proto.operator.v1.Operator/";
/// The streams beside `ComponentUpdate`, which all have the namespace as field 1.
const OTHER_STREAMS: [&str; 6] = [
    "ConfigurationUpdate",
    "HTTPEndpointUpdate",
    "MCPServerUpdate",
    "ResiliencyUpdate",
    "SubscriptionUpdate",
    "WorkflowAccessPolicyUpdate",
];
/// A component's property with the number of the edit, as it stands in the payload.
pub(super) const MARKER: &[u8] = b"\"edit-";

/// When each sidecar got each edit, in nanoseconds since the start; 0 means not yet.
pub(super) struct Arrivals {
    start: Instant,
    sidecars: usize,
    at: Vec<AtomicU64>,
    /// Events that came a second time.
    pub(super) duplicates: AtomicU64,
}

impl Arrivals {
    pub(super) fn new(edits: usize, sidecars: usize) -> Self {
        Self {
            start: Instant::now(),
            sidecars,
            at: (0..edits * sidecars).map(|_| AtomicU64::new(0)).collect(),
            duplicates: AtomicU64::new(0),
        }
    }

    pub(super) fn nanos(&self, at: Instant) -> u64 {
        u64::try_from((at - self.start).as_nanos()).unwrap_or(u64::MAX)
    }

    pub(super) fn of(&self, edit: usize) -> &[AtomicU64] {
        &self.at[edit * self.sidecars..(edit + 1) * self.sidecars]
    }

    fn arrived(&self, edit: usize, sidecar: usize) {
        if let Some(cell) = self.at.get(edit * self.sidecars + sidecar)
            && cell.swap(self.nanos(Instant::now()), Ordering::Relaxed) != 0
        {
            self.duplicates.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A connected sidecar.
pub(super) struct Sidecar {
    namespace: &'static str,
    requests: SendRequest<Bytes>,
    frozen: Arc<AtomicBool>,
    connection: JoinHandle<()>,
    streams: Vec<RecvStream>,
    reader: Option<JoinHandle<()>>,
}

impl Sidecar {
    /// Connects with a certificate of its own app.
    pub(super) async fn connect(
        operator: SocketAddr,
        workloads: &Workloads,
        namespace: &'static str,
        app: &str,
    ) -> anyhow::Result<Self> {
        let tls = TlsConnector::from(Arc::new(config(workloads, namespace, app)?));
        let tcp = TcpStream::connect(operator).await.context("connect")?;
        tcp.set_nodelay(true)?;
        let tls = tls
            .connect(ServerName::try_from("operator")?, tcp)
            .await
            .context("TLS handshake")?;
        let frozen = Arc::new(AtomicBool::new(false));
        let io = Freezable {
            io: tls,
            frozen: frozen.clone(),
        };
        let (requests, connection) = h2::client::handshake(io).await?;
        let connection = tokio::spawn(async move {
            // Ends with the operator, or with this.
            let _ = connection.await;
        });
        Ok(Self {
            namespace,
            requests,
            frozen,
            connection,
            streams: Vec::new(),
            reader: None,
        })
    }

    /// Opens the seven streams. Events of components count as arrivals of the sidecar with this number.
    pub(super) async fn subscribe(&mut self, arrivals: Arc<Arrivals>, number: usize) -> anyhow::Result<()> {
        let request = proto::ComponentUpdateRequest {
            namespace: self.namespace.into(),
        };
        let components = self.call("ComponentUpdate", &request).await?;
        for method in OTHER_STREAMS {
            let stream = match method {
                "SubscriptionUpdate" => {
                    let namespace = self.namespace.into();
                    self.call(method, &proto::SubscriptionUpdateRequest { namespace })
                        .await?
                }
                _ => self.call(method, &request).await?,
            };
            self.streams.push(stream);
        }
        self.reader = Some(tokio::spawn(read(components, arrivals, number)));
        Ok(())
    }

    /// Lists the components and returns how many there are.
    pub(super) async fn list(&mut self) -> anyhow::Result<usize> {
        let namespace = self.namespace.into();
        let mut body = self
            .call("ListComponents", &ListComponentsRequest { namespace })
            .await?;
        let mut answer = BytesMut::new();
        while let Some(chunk) = body.data().await {
            let chunk = chunk?;
            body.flow_control().release_capacity(chunk.len())?;
            answer.extend_from_slice(&chunk);
        }
        ensure!(answer.len() >= 5, "the answer to ListComponents has no message");
        answer.advance(5);
        Ok(proto::ListComponentResponse::decode(answer)?.components.len())
    }

    async fn call(&mut self, method: &str, request: &impl Message) -> anyhow::Result<RecvStream> {
        let head = http::Request::post(format!("http://operator{SERVICE}{method}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())?;
        let mut requests = self.requests.clone().ready().await?;
        let (response, mut body) = requests.send_request(head, false)?;
        body.send_data(frame(request), true)?;
        let (head, body) = response.await?.into_parts();
        let status = head.headers.get("grpc-status");
        ensure!(
            status.is_none_or(|status| status == "0"),
            "{method}: grpc-status {status:?} {:?}",
            head.headers.get("grpc-message")
        );
        Ok(body)
    }

    /// Stops reading for good, as a frozen process does: the socket stays open and fills up.
    pub(super) fn freeze(&self) {
        self.frozen.store(true, Ordering::Relaxed);
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        self.connection.abort();
        if let Some(reader) = &self.reader {
            reader.abort();
        }
    }
}

/// A message with its gRPC prefix.
fn frame(message: &impl Message) -> Bytes {
    let body = message.encode_to_vec();
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
    [&[0][..], &length.to_be_bytes(), &body].concat().into()
}

async fn read(mut components: RecvStream, arrivals: Arc<Arrivals>, number: usize) {
    let mut buffer = BytesMut::new();
    while let Some(Ok(chunk)) = components.data().await {
        // Cannot fail: it is what just arrived.
        let _ = components.flow_control().release_capacity(chunk.len());
        buffer.extend_from_slice(&chunk);
        while let Some(length) = message_length(&buffer) {
            if let Some(edit) = edit_in(&buffer[5..5 + length]) {
                arrivals.arrived(edit, number);
            }
            buffer.advance(5 + length);
        }
    }
}

/// The length of the first message, if it is complete.
fn message_length(buffer: &[u8]) -> Option<usize> {
    let [_, length @ ..] = buffer.first_chunk::<5>()?;
    let length = u32::from_be_bytes(*length) as usize;
    (buffer.len() >= 5 + length).then_some(length)
}

fn edit_in(message: &[u8]) -> Option<usize> {
    let at = message.windows(MARKER.len()).position(|window| window == MARKER)?;
    let digits = message[at + MARKER.len()..]
        .split(|byte| !byte.is_ascii_digit())
        .next()?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

fn config(workloads: &Workloads, namespace: &str, app: &str) -> anyhow::Result<ClientConfig> {
    let id = SpiffeId::new(TrustDomain::new(PUBLIC_TRUST_DOMAIN)?, namespace, app)?;
    let leaf = workloads.leaf(&id)?;
    let key = PrivateKeyDer::try_from(leaf.key).map_err(|error| anyhow::anyhow!("{error}"))?;
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    // The first choice of real sidecars, of upstream's and ours.
    let after = |suite: &SupportedCipherSuite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256;
    provider.cipher_suites.sort_by_key(after);
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()?
        .dangerous()
        // What it costs the load tool to check the operator is nobody's business.
        .with_custom_certificate_verifier(Arc::new(Anyone))
        .with_client_auth_cert(vec![CertificateDer::from(leaf.certificate)], key)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    Ok(config)
}

/// A connection that can be made to stop reading.
struct Freezable {
    io: TlsStream<TcpStream>,
    frozen: Arc<AtomicBool>,
}

impl AsyncRead for Freezable {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.frozen.load(Ordering::Relaxed) {
            return Poll::Pending;
        }
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Freezable {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_told_apart_and_edits_found_in_them() {
        let request = proto::ComponentUpdateEvent {
            component: Bytes::from_static(br#"{"spec":{"version":"edit-17"}}"#),
            r#type: 2,
        };
        let framed = frame(&request);
        assert_eq!(message_length(&framed), Some(framed.len() - 5));
        assert_eq!(message_length(&framed[..framed.len() - 1]), None);
        assert_eq!(message_length(&framed[..3]), None);
        assert_eq!(edit_in(&framed), Some(17));
        assert_eq!(edit_in(b"nothing"), None);
    }
}
