//! What sidecars may say. No I/O, no clock.

use outrigger_proto::outrigger::operator::v1 as proto;

use super::{State, Verdict};
use crate::kinds;

/// Objects that one sidecar may report on.
pub(super) const MAX_OBJECTS: usize = 1000;
/// Verdicts in one message: a snapshot is one message.
const MAX_VERDICTS: usize = MAX_OBJECTS;
/// Longest name of an object or a pod, as Kubernetes has it.
const MAX_NAME: usize = 253;
/// Longest `resourceVersion`; Kubernetes's are numbers.
const MAX_VERSION: usize = 64;
/// Longest reason, in bytes: it is one word.
const MAX_REASON: usize = 64;
/// Longest message, in bytes.
const MAX_MESSAGE: usize = 1024;

/// Why a report is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    #[error("the first message has to be a hello")]
    NoHello,
    #[error("the second message has to be a snapshot")]
    NoSnapshot,
    #[error("after hello and snapshot only changes are expected")]
    OutOfOrder,
    #[error("protocol {0} is not known here, expected {expected}", expected = super::PROTOCOL)]
    Protocol(u32),
    #[error("the report is of app {claimed:?}, and the certificate of app {actual:?}")]
    OtherApp { claimed: String, actual: String },
    #[error("{what} {found:?} is not of a kind that sidecars are sent")]
    Kind { what: &'static str, found: String },
    #[error("{field} has {found} bytes, expected 1 to {max}")]
    Length {
        field: &'static str,
        found: usize,
        max: usize,
    },
    #[error("reason {0:?} is not one word in CamelCase")]
    Reason(String),
    #[error("verdict on {kind} {name:?} has no state that is known here")]
    State { kind: &'static str, name: String },
    #[error("generation {0} is negative")]
    Generation(i64),
    #[error("{found} {what}, expected {max} at most")]
    TooMany {
        what: &'static str,
        found: usize,
        max: usize,
    },
}

/// Checks a hello of a sidecar whose certificate is that of `app`. Returns the kinds that it follows.
///
/// # Errors
/// See [`Invalid`].
pub fn check_hello(hello: &proto::Hello, app: &str) -> Result<Vec<&'static str>, Invalid> {
    if hello.protocol != super::PROTOCOL {
        return Err(Invalid::Protocol(hello.protocol));
    }
    if hello.app != app {
        return Err(Invalid::OtherApp {
            claimed: cut(&hello.app),
            actual: app.to_owned(),
        });
    }
    length("pod", &hello.pod, MAX_NAME)?;
    length("version", &hello.version, MAX_VERSION)?;
    few("followed kinds", hello.follows.len(), kinds::KINDS.len())?;
    let mut follows = hello
        .follows
        .iter()
        .map(|name| kind("followed kind", name))
        .collect::<Result<Vec<_>, _>>()?;
    follows.sort_unstable();
    follows.dedup();
    Ok(follows)
}

/// Checks verdicts. `now` is in seconds since 1970: nothing is judged in the future.
///
/// # Errors
/// See [`Invalid`].
pub fn check_verdicts(verdicts: &[proto::Verdict], now: i64) -> Result<Vec<Verdict<'_>>, Invalid> {
    few("verdicts in a message", verdicts.len(), MAX_VERDICTS)?;
    verdicts.iter().map(|verdict| check(verdict, now)).collect()
}

/// Checks how many objects a sidecar reports on.
pub(super) fn check_objects(found: usize) -> Result<(), Invalid> {
    few("objects that one sidecar reports on", found, MAX_OBJECTS)
}

fn check(verdict: &proto::Verdict, now: i64) -> Result<Verdict<'_>, Invalid> {
    let kind = kind("kind", &verdict.kind)?;
    length("name", &verdict.name, MAX_NAME)?;
    if verdict.resource_version.len() > MAX_VERSION {
        length("resourceVersion", &verdict.resource_version, MAX_VERSION)?;
    }
    if verdict.generation < 0 {
        return Err(Invalid::Generation(verdict.generation));
    }
    let state = match verdict.state() {
        proto::VerdictState::Loaded => State::Loaded,
        proto::VerdictState::Removed => State::Removed,
        proto::VerdictState::Rejected => {
            length("reason", &verdict.reason, MAX_REASON)?;
            let word = verdict.reason.chars().all(|c| c.is_ascii_alphanumeric());
            if !(word && verdict.reason.starts_with(|c: char| c.is_ascii_uppercase())) {
                return Err(Invalid::Reason(verdict.reason.clone()));
            }
            length("message", &verdict.message, MAX_MESSAGE)?;
            State::Rejected {
                reason: &verdict.reason,
                message: &verdict.message,
            }
        }
        proto::VerdictState::Unspecified => {
            let name = verdict.name.clone();
            return Err(Invalid::State { kind, name });
        }
    };
    Ok(Verdict {
        kind,
        name: &verdict.name,
        generation: verdict.generation,
        resource_version: &verdict.resource_version,
        state,
        judged_at: verdict.judged_at.clamp(0, now),
    })
}

fn kind(what: &'static str, name: &str) -> Result<&'static str, Invalid> {
    kinds::kind(name).ok_or_else(|| Invalid::Kind { what, found: cut(name) })
}

fn length(field: &'static str, text: &str, max: usize) -> Result<(), Invalid> {
    match text.len() {
        found if (1..=max).contains(&found) => Ok(()),
        found => Err(Invalid::Length { field, found, max }),
    }
}

fn few(what: &'static str, found: usize, max: usize) -> Result<(), Invalid> {
    if found > max {
        return Err(Invalid::TooMany { what, found, max });
    }
    Ok(())
}

/// What is repeated of a text that may be of any length.
fn cut(text: &str) -> String {
    text.chars().take(64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello() -> proto::Hello {
        proto::Hello {
            protocol: 1,
            pod: "cart-1".into(),
            app: "cart".into(),
            version: "1.16.0".into(),
            follows: vec!["Configuration".into(), "Component".into(), "Component".into()],
        }
    }

    fn rejected() -> proto::Verdict {
        proto::Verdict {
            kind: "Component".into(),
            name: "db".into(),
            generation: 2,
            resource_version: "7".into(),
            state: proto::VerdictState::Rejected.into(),
            reason: "InitFailed".into(),
            message: "no route".into(),
            judged_at: 5,
        }
    }

    fn refused(verdict: proto::Verdict) -> String {
        check_verdicts(&[verdict], 10).unwrap_err().to_string()
    }

    #[test]
    fn a_hello_is_of_the_certificates_app_and_of_known_kinds() {
        assert_eq!(check_hello(&hello(), "cart").unwrap(), ["Component", "Configuration"]);
        assert_eq!(
            check_hello(&hello(), "till").unwrap_err().to_string(),
            r#"the report is of app "cart", and the certificate of app "till""#
        );
        let mut other = hello();
        other.protocol = 2;
        assert_eq!(check_hello(&other, "cart"), Err(Invalid::Protocol(2)));
        let mut other = hello();
        other.follows.push("Pod".into());
        assert_eq!(
            check_hello(&other, "cart").unwrap_err().to_string(),
            r#"followed kind "Pod" is not of a kind that sidecars are sent"#
        );
        for pod in [String::new(), "x".repeat(254)] {
            let other = proto::Hello { pod, ..hello() };
            assert!(matches!(
                check_hello(&other, "cart"),
                Err(Invalid::Length { field: "pod", .. })
            ));
        }
    }

    #[test]
    fn verdicts_are_read() {
        let verdict = rejected();
        let loaded = proto::Verdict {
            state: proto::VerdictState::Loaded.into(),
            judged_at: 99,
            reason: String::new(),
            message: String::new(),
            ..rejected()
        };
        let both = [verdict, loaded];
        let read = check_verdicts(&both, 10).unwrap();
        let state = State::Rejected {
            reason: "InitFailed",
            message: "no route",
        };
        assert_eq!((read[0].state, read[0].judged_at), (state, 5));
        assert_eq!(
            (read[1].state, read[1].judged_at),
            (State::Loaded, 10),
            "not in the future"
        );
    }

    #[test]
    fn what_is_out_of_bounds_is_named() {
        let length = |field, found, max| Invalid::Length { field, found, max }.to_string();
        for (verdict, error) in [
            (
                proto::Verdict {
                    name: "x".repeat(254),
                    ..rejected()
                },
                length("name", 254, 253),
            ),
            (
                proto::Verdict {
                    name: String::new(),
                    ..rejected()
                },
                length("name", 0, 253),
            ),
            (
                proto::Verdict {
                    message: "x".repeat(1025),
                    ..rejected()
                },
                length("message", 1025, 1024),
            ),
            (
                proto::Verdict {
                    resource_version: "1".repeat(65),
                    ..rejected()
                },
                length("resourceVersion", 65, 64),
            ),
            (
                proto::Verdict {
                    reason: "no route".into(),
                    ..rejected()
                },
                Invalid::Reason("no route".into()).to_string(),
            ),
            (
                proto::Verdict {
                    kind: "Pod".into(),
                    ..rejected()
                },
                r#"kind "Pod" is not of a kind that sidecars are sent"#.to_owned(),
            ),
            (
                proto::Verdict {
                    generation: -1,
                    ..rejected()
                },
                "generation -1 is negative".to_owned(),
            ),
            (
                proto::Verdict { state: 9, ..rejected() },
                r#"verdict on Component "db" has no state that is known here"#.to_owned(),
            ),
        ] {
            assert_eq!(refused(verdict), error);
        }
        let many = vec![rejected(); 1001];
        assert_eq!(
            check_verdicts(&many, 10).unwrap_err().to_string(),
            "1001 verdicts in a message, expected 1000 at most"
        );
    }
}
