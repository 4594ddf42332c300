//! Status codes between gRPC and HTTP. The two directions do not mirror each other; existing callers rely on both.

use http::StatusCode;
use tonic::Code;

pub fn grpc_to_http(code: Code) -> StatusCode {
    match code {
        Code::Ok => StatusCode::OK,
        Code::Cancelled => StatusCode::REQUEST_TIMEOUT,
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => StatusCode::BAD_REQUEST,
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::AlreadyExists | Code::Aborted => StatusCode::CONFLICT,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::Unknown | Code::Internal | Code::DataLoss => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

pub fn http_to_grpc(status: StatusCode) -> Code {
    match status.as_u16() {
        200..300 => Code::Ok,
        400 => Code::Internal,
        401 => Code::Unauthenticated,
        403 => Code::PermissionDenied,
        404 => Code::NotFound,
        408 => Code::Cancelled,
        409 => Code::AlreadyExists,
        429 => Code::ResourceExhausted,
        501 => Code::Unimplemented,
        503 => Code::Unavailable,
        504 => Code::DeadlineExceeded,
        // 500 among them.
        _ => Code::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directions_differ() {
        assert_eq!(grpc_to_http(Code::InvalidArgument), StatusCode::BAD_REQUEST);
        assert_eq!(http_to_grpc(StatusCode::BAD_REQUEST), Code::Internal);
        assert_eq!(http_to_grpc(StatusCode::INTERNAL_SERVER_ERROR), Code::Unknown);
        assert_eq!(http_to_grpc(StatusCode::CREATED), Code::Ok);
        assert_eq!(grpc_to_http(Code::Aborted), StatusCode::CONFLICT);
    }
}
