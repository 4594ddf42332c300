//! Go's duration texts: `1h30m`, `1.5h`, `300ms`, and the canonical form in which Go prints them.

use std::{fmt, str::FromStr, time::Duration};

/// A signed duration in nanoseconds, as Go's `time.Duration`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct GoDuration(i64);

/// Why a text is not a Go duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    #[error("{0:?} is not a duration: expected numbers with units such as 300ms, 1.5h or 2h45m")]
    Malformed(String),
    #[error("{0:?} has no unit: expected one of ns, us, ms, s, m, h")]
    NoUnit(String),
    #[error("{0:?} is out of range: the longest duration is about 292 years")]
    OutOfRange(String),
}

impl GoDuration {
    pub const fn from_nanos(nanos: i64) -> Self {
        Self(nanos)
    }

    pub const fn nanos(self) -> i64 {
        self.0
    }

    /// The duration for timers; negative ones become zero.
    pub fn as_std(self) -> Duration {
        Duration::from_nanos(u64::try_from(self.0).unwrap_or(0))
    }

    /// Parses Go's grammar: an optional sign, then numbers with units; a bare `0` is legal, another bare number is not.
    ///
    /// # Errors
    /// Says what was found and what was expected.
    pub fn parse(text: &str) -> Result<Self, DurationError> {
        let malformed = || DurationError::Malformed(text.to_owned());
        let (negative, mut rest) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        if rest == "0" {
            return Ok(Self(0));
        }
        if rest.is_empty() {
            return Err(malformed());
        }
        // Summed as a negative number, since Go allows the smallest i64.
        let mut total: i128 = 0;
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
            let (whole, tail) = rest.split_at(digits);
            let (fraction, tail) = match tail.strip_prefix('.') {
                Some(tail) => tail.split_at(tail.find(|c: char| !c.is_ascii_digit()).unwrap_or(tail.len())),
                None => ("", tail),
            };
            if whole.is_empty() && fraction.is_empty() {
                return Err(malformed());
            }
            let unit_len = tail
                .find(|c: char| c.is_ascii_digit() || c == '.')
                .unwrap_or(tail.len());
            let (unit, tail) = tail.split_at(unit_len);
            let scale = match unit {
                "ns" => 1,
                "us" | "µs" | "μs" => 1_000,
                "ms" => 1_000_000,
                "s" => 1_000_000_000,
                "m" => 60 * 1_000_000_000,
                "h" => 3_600 * 1_000_000_000_i128,
                "" => return Err(DurationError::NoUnit(text.to_owned())),
                _ => return Err(malformed()),
            };
            let out_of_range = || DurationError::OutOfRange(text.to_owned());
            let units: i128 = if whole.is_empty() {
                0
            } else {
                whole.parse().map_err(|_| out_of_range())?
            };
            total = units
                .checked_mul(scale)
                .and_then(|n| total.checked_add(n))
                .ok_or_else(out_of_range)?;
            total += fraction_nanos(fraction, scale);
            if total > i128::from(i64::MAX) + 1 {
                return Err(out_of_range());
            }
            rest = tail;
        }
        let signed = if negative { -total } else { total };
        i64::try_from(signed)
            .map(Self)
            .map_err(|_| DurationError::OutOfRange(text.to_owned()))
    }
}

/// Nanoseconds of the digits after the point; digits too small to matter are dropped, as in Go.
fn fraction_nanos(digits: &str, scale: i128) -> i128 {
    // An hour has 3.6e12 ns: digits beyond the fifteenth cannot add a nanosecond.
    let (mut nanos, mut divisor) = (0_i128, 1_i128);
    for digit in digits.bytes().take(15) {
        nanos = nanos * 10 + i128::from(digit - b'0');
        divisor *= 10;
    }
    nanos * scale / divisor
}

impl FromStr for GoDuration {
    type Err = DurationError;

    fn from_str(text: &str) -> Result<Self, DurationError> {
        Self::parse(text)
    }
}

impl fmt::Display for GoDuration {
    /// Go's canonical form: `72h0m0s`, `1m30s`, `100ms`, `1.5µs`, `0s`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.0.unsigned_abs();
        if self.0 < 0 {
            f.write_str("-")?;
        }
        if nanos == 0 {
            return f.write_str("0s");
        }
        match nanos {
            0..1_000 => write!(f, "{nanos}ns"),
            1_000..1_000_000 => write!(f, "{}µs", decimal(nanos, 1_000)),
            1_000_000..1_000_000_000 => write!(f, "{}ms", decimal(nanos, 1_000_000)),
            _ => {
                let minutes = nanos / 60_000_000_000;
                let seconds = decimal(nanos % 60_000_000_000, 1_000_000_000);
                match minutes {
                    0 => write!(f, "{seconds}s"),
                    1..60 => write!(f, "{minutes}m{seconds}s"),
                    _ => write!(f, "{}h{}m{seconds}s", minutes / 60, minutes % 60),
                }
            }
        }
    }
}

/// `value / unit` with as many decimals as needed.
fn decimal(value: u64, unit: u64) -> String {
    let (whole, rest) = (value / unit, value % unit);
    if rest == 0 {
        return whole.to_string();
    }
    let width = unit.ilog10() as usize;
    let fraction = format!("{rest:0width$}");
    format!("{whole}.{}", fraction.trim_end_matches('0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canonical(text: &str) -> String {
        GoDuration::parse(text).unwrap().to_string()
    }

    #[test]
    fn prints_as_go_does() {
        for (text, expected) in [
            ("72h", "72h0m0s"),
            ("1m", "1m0s"),
            ("90s", "1m30s"),
            ("100ms", "100ms"),
            ("0s", "0s"),
            ("0", "0s"),
            ("1.5h", "1h30m0s"),
            ("1h30m10.5s", "1h30m10.5s"),
            ("300us", "300µs"),
            ("1500ns", "1.5µs"),
            ("-2s", "-2s"),
            ("+5s", "5s"),
            (".5s", "500ms"),
            ("0.333h", "19m58.8s"),
        ] {
            assert_eq!(canonical(text), expected, "{text}");
        }
    }

    #[test]
    fn refuses_what_go_refuses() {
        assert_eq!(GoDuration::parse("10"), Err(DurationError::NoUnit("10".into())));
        for bad in ["", "-", "1d", "s", "1h 30m", "1.s.", "1,5s"] {
            assert!(GoDuration::parse(bad).is_err(), "{bad:?}");
        }
        assert_eq!(
            GoDuration::parse("300000000h"),
            Err(DurationError::OutOfRange("300000000h".into()))
        );
    }
}
