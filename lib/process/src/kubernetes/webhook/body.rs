//! The bodies of reviews: bounded in size, in time, and all of them together.

use std::sync::{Arc, LazyLock};

use axum::{
    body::{Body, Bytes},
    http::{HeaderValue, StatusCode, header},
    response::Response,
};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError},
    time::timeout,
};

use super::{BODY_DEADLINE, MAX_BODY, refusal};

/// Bytes of all bodies that the process reads or has read and not answered yet: anybody may send some before it is known who
/// asks, on many streams of many connections.
const MAX_TOGETHER: usize = 64 << 20;

static BUDGET: LazyLock<Arc<Semaphore>> = LazyLock::new(|| Arc::new(Semaphore::new(MAX_TOGETHER)));

/// The whole body of a review, which must not be empty: at most 8 MiB within nine seconds. It counts against what all bodies
/// may take together until it is dropped.
///
/// # Errors
/// The answer to give instead.
pub async fn read(body: Body) -> Result<Bytes, Response> {
    read_within(body, &BUDGET).await
}

async fn read_within(body: Body, budget: &Arc<Semaphore>) -> Result<Bytes, Response> {
    let held = timeout(BODY_DEADLINE, Held::collect(body, budget))
        .await
        .map_err(|_| refusal(StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time"))??;
    if held.bytes.is_empty() {
        return Err(empty());
    }
    Ok(Bytes::from_owner(held))
}

/// Bytes, and the part of the budget that they take.
#[derive(Default)]
struct Held {
    bytes: Vec<u8>,
    permit: Option<OwnedSemaphorePermit>,
}

impl Held {
    async fn collect(body: Body, budget: &Arc<Semaphore>) -> Result<Self, Response> {
        let mut body = Limited::new(body, MAX_BODY);
        let mut held = Self::default();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| {
                if error.is::<LengthLimitError>() {
                    return refusal(StatusCode::PAYLOAD_TOO_LARGE, "the body is longer than 8 MiB");
                }
                tracing::debug!(%error, "a body cannot be read");
                empty()
            })?;
            if let Ok(data) = frame.into_data() {
                held.append(&data, budget).map_err(|_| busy())?;
            }
        }
        Ok(held)
    }

    fn append(&mut self, data: &[u8], budget: &Arc<Semaphore>) -> Result<(), TryAcquireError> {
        let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
        let permit = budget.clone().try_acquire_many_owned(length)?;
        match &mut self.permit {
            Some(held) => held.merge(permit),
            none => *none = Some(permit),
        }
        self.bytes.extend_from_slice(data);
        Ok(())
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

    #[tokio::test]
    async fn bodies_take_from_the_budget_until_they_are_dropped() {
        let budget = Arc::new(Semaphore::new(10));
        let first = read_within(body(&["ab", "cd"]), &budget).await.unwrap();
        assert_eq!((&*first, budget.available_permits()), (&b"abcd"[..], 6));
        let refused = read_within(body(&["efgh", "ijk"]), &budget).await.unwrap_err();
        assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(refused.headers()[header::RETRY_AFTER], "1");
        assert_eq!(budget.available_permits(), 6, "what was read of it is given back");
        let part = first.slice(1..2);
        drop(first);
        assert_eq!(budget.available_permits(), 6, "a part keeps the whole");
        drop(part);
        assert_eq!(
            &*read_within(body(&["efgh", "ijk"]), &budget).await.unwrap(),
            b"efghijk"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_never_ends_gives_back_what_it_took() {
        let budget = Arc::new(Semaphore::new(10));
        let start = stream::iter([Ok::<_, std::io::Error>("abc")]);
        let never = Body::from_stream(start.chain(stream::pending()));
        let refused = read_within(never, &budget).await.unwrap_err();
        assert_eq!(refused.status(), StatusCode::REQUEST_TIMEOUT);
        assert_eq!(budget.available_permits(), 10);
    }

    #[tokio::test]
    async fn empty_bodies_and_too_long_ones_are_refused() {
        let budget = Arc::new(Semaphore::new(MAX_TOGETHER));
        let refused = read_within(body(&[""]), &budget).await.unwrap_err();
        assert_eq!(refused.status(), StatusCode::BAD_REQUEST);
        let long = Body::from(vec![b' '; MAX_BODY + 1]);
        let refused = read_within(long, &budget).await.unwrap_err();
        assert_eq!(refused.status(), StatusCode::PAYLOAD_TOO_LARGE);
    }
}
