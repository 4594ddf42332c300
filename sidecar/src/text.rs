//! Texts for people.

use std::error::Error;

/// An error and its causes, outermost first. A cause that its parent's text already ends with is left out.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.ends_with(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}

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
    use std::io;

    use super::*;

    #[test]
    fn causes_are_told_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("cannot read")]
        struct Outer(#[source] io::Error);
        assert_eq!(chain(&Outer(io::Error::other("no disk"))), "cannot read: no disk");
        assert_eq!(chain(&io::Error::other(io::Error::other("no disk"))), "no disk");
        assert_eq!(status(&tonic::Status::unknown("x not found")), "Unknown: x not found");
    }
}
