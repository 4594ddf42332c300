//! The bodies of reviews: bounded in size, in time, and all of them together.

mod budget;

use std::{
    net::{IpAddr, Ipv6Addr},
    sync::LazyLock,
};

use axum::{
    body::{Body, Bytes},
    extract::Request,
    http::{HeaderValue, StatusCode, header, request::Parts},
    response::Response,
};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use tokio::time::timeout;

use self::budget::{Budget, Exhausted, Part};
use super::{BODY_DEADLINE, MAX_BODY, Peer, refusal};

/// Bytes of all bodies that the process reads or has read and not answered yet: anybody may send some before it is known who
/// asks, on many streams of many connections.
const MAX_TOGETHER: usize = 64 << 20;

static BUDGET: LazyLock<Budget> = LazyLock::new(|| Budget::new(MAX_TOGETHER));

/// A review's head and its whole body, which must not be empty: at most 8 MiB within nine seconds. It counts against what all
/// bodies may take together until it is dropped.
///
/// # Errors
/// The answer to give instead.
pub async fn read(request: Request) -> Result<(Parts, Bytes), Response> {
    let (parts, body) = request.into_parts();
    // Whoever was not accepted by `serve` is one peer.
    let peer = parts
        .extensions
        .get()
        .map_or(Ipv6Addr::UNSPECIFIED.into(), |Peer(ip)| *ip);
    let body = read_within(body, peer, &BUDGET).await?;
    Ok((parts, body))
}

async fn read_within(body: Body, peer: IpAddr, budget: &Budget) -> Result<Bytes, Response> {
    let held = Held {
        bytes: Vec::new(),
        part: budget.part_of(peer),
    };
    let held = timeout(BODY_DEADLINE, held.collect(body))
        .await
        .map_err(|_| refusal(StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time"))??;
    if held.bytes.is_empty() {
        return Err(empty());
    }
    Ok(Bytes::from_owner(held))
}

/// Bytes, and the part of the budget that they take.
struct Held {
    bytes: Vec<u8>,
    part: Part,
}

impl Held {
    async fn collect(mut self, body: Body) -> Result<Self, Response> {
        let mut body = Limited::new(body, MAX_BODY);
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| {
                if error.is::<LengthLimitError>() {
                    return refusal(StatusCode::PAYLOAD_TOO_LARGE, "the body is longer than 8 MiB");
                }
                tracing::debug!(%error, "a body cannot be read");
                empty()
            })?;
            if let Ok(data) = frame.into_data() {
                self.part.grow(data.len()).map_err(|Exhausted| busy())?;
                self.bytes.extend_from_slice(&data);
            }
        }
        Ok(self)
    }
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

fn empty() -> Response {
    refusal(StatusCode::BAD_REQUEST, "empty body")
}

/// The API server tries again after this time.
fn busy() -> Response {
    let mut response = refusal(StatusCode::SERVICE_UNAVAILABLE, "too many reviews at once; try again");
    let headers = response.headers_mut();
    headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

#[cfg(test)]
mod tests {
    use futures::{StreamExt, stream};

    use super::*;

    fn body(frames: &[&'static str]) -> Body {
        let frames: Vec<Result<_, std::io::Error>> = frames.iter().map(|frame| Ok(*frame)).collect();
        Body::from_stream(stream::iter(frames))
    }

    const PEER: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

    #[tokio::test]
    async fn bodies_take_from_the_budget_until_they_are_dropped() {
        let budget = Budget::new(12);
        let first = read_within(body(&["ab", "cd"]), PEER, &budget).await.unwrap();
        assert_eq!((&*first, budget.free()), (&b"abcd"[..], 8));
        let refused = read_within(body(&["efgh", "ij"]), PEER, &budget).await.unwrap_err();
        assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(refused.headers()[header::RETRY_AFTER], "1");
        assert_eq!(budget.free(), 8, "what was read of it is given back");
        let part = first.slice(1..2);
        drop(first);
        assert_eq!(budget.free(), 8, "a part keeps the whole");
        drop(part);
        let again = read_within(body(&["efgh", "ij"]), PEER, &budget).await.unwrap();
        assert_eq!(&*again, b"efghij");
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_never_ends_gives_back_what_it_took() {
        let budget = Budget::new(12);
        let start = stream::iter([Ok::<_, std::io::Error>("abc")]);
        let never = Body::from_stream(start.chain(stream::pending()));
        let refused = read_within(never, PEER, &budget).await.unwrap_err();
        assert_eq!(refused.status(), StatusCode::REQUEST_TIMEOUT);
        assert_eq!(budget.free(), 12);
    }

    #[tokio::test]
    async fn empty_bodies_and_too_long_ones_are_refused() {
        let budget = Budget::new(MAX_TOGETHER);
        let refused = read_within(body(&[""]), PEER, &budget).await.unwrap_err();
        assert_eq!(refused.status(), StatusCode::BAD_REQUEST);
        let long = Body::from(vec![b' '; MAX_BODY + 1]);
        let refused = read_within(long, PEER, &budget).await.unwrap_err();
        assert_eq!(refused.status(), StatusCode::PAYLOAD_TOO_LARGE);
    }
}
