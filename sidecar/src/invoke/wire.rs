//! Bodies as numbered payloads, the way sidecars exchange them.

use std::collections::VecDeque;

use axum::body::Body;
use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use http_body_util::BodyExt;
use outrigger_proto::common::StreamPayload;
use tonic::Status;

/// Longest payload: far below any limit on messages, long enough to cost little.
const CHUNK: usize = 32 << 10;

/// What a message may be larger than the body in it: headers.
const HEADERS: usize = 1 << 20;

/// Limit on the messages of the internal protocol, for bodies of at most `max_body` bytes.
pub fn largest_message(max_body: usize) -> usize {
    max_body.saturating_add(HEADERS)
}

/// A body as payloads, numbered from 0.
pub fn payloads(body: Body) -> impl Stream<Item = Result<StreamPayload, axum::Error>> + Send {
    let state = (body, VecDeque::new(), 0_u64);
    stream::unfold(state, |(mut body, mut waiting, seq)| async move {
        loop {
            if let Some(data) = waiting.pop_front() {
                return Some((Ok(StreamPayload { data, seq }), (body, waiting, seq + 1)));
            }
            match body.frame().await? {
                Ok(frame) => {
                    let Ok(mut data) = frame.into_data() else { continue };
                    while data.len() > CHUNK {
                        waiting.push_back(data.split_to(CHUNK));
                    }
                    if !data.is_empty() {
                        waiting.push_back(data);
                    }
                }
                Err(error) => return Some((Err(error), (Body::empty(), waiting, seq))),
            }
        }
    })
}

/// Payloads as a body. A gap in the numbers breaks the body, so that nobody takes it for whole.
pub fn body(
    first: Option<StreamPayload>,
    rest: impl Stream<Item = Result<Option<StreamPayload>, Status>> + Send + 'static,
) -> Body {
    let mut expected = 0;
    let first = stream::iter(first.map(|payload| Ok(Some(payload))));
    Body::from_stream(first.chain(rest).map(move |payload| match payload? {
        None => Ok(Bytes::new()),
        Some(payload) if payload.seq == expected => {
            expected += 1;
            Ok(payload.data)
        }
        Some(payload) => Err(Status::invalid_argument(format!(
            "invalid sequence number: {}, expected {expected}",
            payload.seq
        ))),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(seq: u64, data: &'static str) -> StreamPayload {
        StreamPayload { data: data.into(), seq }
    }

    #[tokio::test]
    async fn long_bodies_are_cut_and_numbered() {
        let sent: Vec<_> = payloads(Body::from(vec![7; CHUNK * 2 + 1]))
            .map(Result::unwrap)
            .collect()
            .await;
        assert_eq!(
            sent.iter()
                .map(|payload| (payload.seq, payload.data.len()))
                .collect::<Vec<_>>(),
            [(0, CHUNK), (1, CHUNK), (2, 1)]
        );
        assert_eq!(payloads(Body::empty()).count().await, 0);
    }

    #[tokio::test]
    async fn payloads_in_order_are_the_body() {
        let rest = stream::iter([Ok(None), Ok(Some(payload(1, "b")))]);
        let whole = body(Some(payload(0, "a")), rest).collect().await.unwrap().to_bytes();
        assert_eq!(whole, "ab");
    }

    #[tokio::test]
    async fn a_gap_breaks_the_body() {
        let broken = body(
            None,
            stream::iter([Ok(Some(payload(0, "a"))), Ok(Some(payload(2, "b")))]),
        );
        assert!(
            broken
                .collect()
                .await
                .unwrap_err()
                .to_string()
                .contains("invalid sequence number: 2, expected 1")
        );
        let cut = body(
            None,
            stream::iter([Ok(Some(payload(0, "a"))), Err(Status::unavailable("gone"))]),
        );
        assert!(cut.collect().await.is_err());
    }
}
