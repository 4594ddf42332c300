//! Texts for people.

use std::error::Error;

use outrigger_core::text::chain;

/// A gRPC status with its cause, which for a failed connection says why.
pub fn status(status: &tonic::Status) -> String {
    let code = status.code();
    let text = match status.source() {
        Some(cause) => format!("{}: {}", status.message(), chain(cause)),
        None => status.message().to_owned(),
    };
    format!("{code:?}: {text}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_without_a_cause_is_its_code_and_message() {
        assert_eq!(status(&tonic::Status::unknown("x not found")), "Unknown: x not found");
    }
}
