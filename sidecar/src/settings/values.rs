//! Values of flags.

use super::Error;
use crate::quantity;

pub fn value(flag: &'static str, found: &str, expected: &str) -> Error {
    Error::Value {
        flag,
        found: found.to_owned(),
        expected: expected.to_owned(),
    }
}

pub fn port(flag: &'static str, text: &str) -> Result<u16, Error> {
    text.parse().map_err(|_| value(flag, text, "a port number up to 65535"))
}

pub fn optional_port(flag: &'static str, text: &str) -> Result<u16, Error> {
    if text.is_empty() { Ok(0) } else { port(flag, text) }
}

/// `[::1]` is how an IPv6 address is written in front of a port.
pub fn unbracketed(address: &str) -> String {
    address.trim().trim_start_matches('[').trim_end_matches(']').to_owned()
}

pub fn non_empty(list: &[String]) -> Vec<String> {
    list.iter()
        .map(|item| item.trim())
        .filter(|item| !item.is_empty())
        .map(str::to_owned)
        .collect()
}

/// The quantity wins over the deprecated number; -1 stands for the default in both.
pub fn size(
    flag: &'static str,
    quantity: Option<&str>,
    number: Option<i64>,
    unit: i64,
    default: usize,
) -> Result<usize, Error> {
    let bytes = match (quantity, number) {
        (Some(text), _) => quantity::bytes(text).map_err(|error| value(flag, text, &error))?,
        (None, Some(-1) | None) => return Ok(default),
        (None, Some(number)) => number.saturating_mul(unit),
    };
    match bytes {
        -1 => Ok(default),
        bytes => usize::try_from(bytes)
            .ok()
            .filter(|n| *n > 0)
            .ok_or_else(|| value(flag, &bytes.to_string(), "a positive size")),
    }
}
