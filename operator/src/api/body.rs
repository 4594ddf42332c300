//! How update streams are sent: tonic would copy each message into a buffer of the call's, and hold that for as long as the call
//! lasts, so that an edit of 64 KB leaves 64 MB with a thousand sidecars. The frame of a version is encoded once instead, and is
//! what all of them are sent; tonic answers the call, and the body is put in place of its own.

use std::sync::Arc;

use bytes::Bytes;
use http_body::Body as HttpBody;
use parking_lot::Mutex;
use tokio_stream::{Empty, empty};
use tonic::{Response, Status, body::Body};

/// What tonic sends.
pub(super) type Nothing<E> = Empty<Result<E, Status>>;

/// What is sent. Extensions have to be shared and cloned; it is taken once.
#[derive(Clone)]
struct Instead(Arc<Mutex<Option<Body>>>);

/// The answer to a call whose messages `body` sends, and its trailers.
pub(super) fn sent_by<E>(body: impl HttpBody<Data = Bytes, Error = Status> + Send + 'static) -> Response<Nothing<E>> {
    let mut response = Response::new(empty());
    let instead = Instead(Arc::new(Mutex::new(Some(Body::new(body)))));
    response.extensions_mut().insert(instead);
    response
}

/// Puts the body in its place.
pub(super) fn put_in_place(mut response: http::Response<Body>) -> http::Response<Body> {
    let instead = response.extensions_mut().remove::<Instead>();
    match instead.and_then(|instead| instead.0.lock().take()) {
        Some(body) => response.map(|_| body),
        None => response,
    }
}
