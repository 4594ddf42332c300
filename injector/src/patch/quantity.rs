//! Kubernetes quantities, for the resources of the sidecar: read, and written in the canonical form.

use std::fmt;

/// Decimal exponents are kept down to nano, the finest that Kubernetes keeps.
const NANO: i32 = -9;
/// Digits behind the point that are read; a product with the largest binary suffix then fits.
const KEPT: usize = 12;
/// The largest value that Kubernetes keeps, in nanos.
const MAX: i128 = i64::MAX as i128 * 1_000_000_000;

/// A quantity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quantity {
    nanos: i128,
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Binary,
    Decimal,
    Exponent,
}

/// The text is no quantity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a quantity such as 500m, 0.5, 128Mi or 1e3")]
pub struct QuantityError(String);

impl Quantity {
    /// Reads `<sign><digits>.<digits><suffix>`; digits finer than nano round away from zero, as Kubernetes has it.
    ///
    /// # Errors
    /// When the text is no quantity.
    pub fn parse(text: &str) -> Result<Self, QuantityError> {
        Self::read(text).ok_or_else(|| QuantityError(text.to_owned()))
    }

    fn read(text: &str) -> Option<Self> {
        let (negative, unsigned) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        let digits = |text: &str| text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (whole, rest) = unsigned.split_at(digits(unsigned));
        let (fraction, suffix) = match rest.strip_prefix('.') {
            Some(rest) => rest.split_at(digits(rest)),
            None => ("", rest),
        };
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let (format, power) = scale(suffix)?;
        // Digits that cannot matter but by rounding up are folded into one.
        let (kept, rest) = fraction.split_at(fraction.len().min(KEPT));
        let rounding = rest.bytes().any(|digit| digit != b'0').then_some(b'1');
        let places = kept.len() + usize::from(rounding.is_some());
        let places = i32::try_from(places).ok()?;
        let all = whole.bytes().chain(kept.bytes()).chain(rounding);
        let nanos = match format {
            Format::Binary => nanos(all, -places, 1_i128 << power),
            _ => nanos(all, power.checked_sub(places)?, 1),
        };
        Some(Self {
            nanos: if negative { -nanos } else { nanos },
            format,
        })
    }
}

/// Format, and the power of ten, or of two for binary suffixes.
fn scale(suffix: &str) -> Option<(Format, i32)> {
    let decimal = |power| Some((Format::Decimal, power));
    let binary = |power| Some((Format::Binary, power));
    match suffix {
        "n" => decimal(-9),
        "u" => decimal(-6),
        "m" => decimal(-3),
        "" => decimal(0),
        "k" => decimal(3),
        "M" => decimal(6),
        "G" => decimal(9),
        "T" => decimal(12),
        "P" => decimal(15),
        "E" => decimal(18),
        "Ki" => binary(10),
        "Mi" => binary(20),
        "Gi" => binary(30),
        "Ti" => binary(40),
        "Pi" => binary(50),
        "Ei" => binary(60),
        _ => {
            let exponent = suffix.strip_prefix(['e', 'E'])?;
            exponent.parse().ok().map(|power| (Format::Exponent, power))
        }
    }
}

/// `digits * 10^power * factor` in nanos, rounded up, and no more than [`MAX`].
fn nanos(digits: impl Iterator<Item = u8>, power: i32, factor: i128) -> i128 {
    let mut mantissa: i128 = 0;
    for digit in digits {
        mantissa = mantissa.saturating_mul(10).saturating_add(i128::from(digit - b'0'));
    }
    if mantissa == 0 {
        return 0;
    }
    let mut value = mantissa.saturating_mul(factor);
    let shift = i64::from(power) - i64::from(NANO);
    if shift >= 0 {
        for _ in 0..shift.min(40) {
            value = value.saturating_mul(10);
        }
    } else {
        let divisor = 10_i128.checked_pow(u32::try_from(-shift).unwrap_or(u32::MAX));
        value = divisor.map_or(1, |divisor| (value - 1) / divisor + 1);
    }
    value.min(MAX)
}

impl fmt::Display for Quantity {
    /// The canonical form: no fraction, and the largest suffix that allows it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNIT: i128 = 1_000_000_000;
        if self.nanos == 0 {
            return f.write_str("0");
        }
        // Below 1 Ki binary suffixes would only round.
        if self.format == Format::Binary && self.nanos.abs() >= 1024 * UNIT {
            let mut value = (self.nanos.abs() - 1) / UNIT + 1;
            let mut suffixes = ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"].into_iter();
            let mut suffix = "";
            while value % 1024 == 0
                && let Some(next) = suffixes.next()
            {
                value /= 1024;
                suffix = next;
            }
            return write!(f, "{}{suffix}", value * self.nanos.signum());
        }
        let (mut value, mut power) = (self.nanos, NANO);
        while value % 1000 == 0 && power < 18 {
            value /= 1000;
            power += 3;
        }
        if self.format == Format::Exponent {
            return match power {
                0 => write!(f, "{value}"),
                power => write!(f, "{value}e{power}"),
            };
        }
        let suffix = match power {
            -9 => "n",
            -6 => "u",
            -3 => "m",
            0 => "",
            3 => "k",
            6 => "M",
            9 => "G",
            12 => "T",
            15 => "P",
            _ => "E",
        };
        write!(f, "{value}{suffix}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_form() {
        for (text, expected) in [
            ("1000m", "1"),
            ("1500m", "1500m"),
            ("0.5", "500m"),
            (".5", "500m"),
            ("5.", "5"),
            ("100m", "100m"),
            ("1", "1"),
            ("+1", "1"),
            ("-1.5", "-1500m"),
            ("1000", "1k"),
            ("1024", "1024"),
            ("1024Ki", "1Mi"),
            ("1.5Gi", "1536Mi"),
            ("0.5Ki", "512"),
            ("1.0001Ki", "1025"),
            ("2048Mi", "2Gi"),
            ("128974848", "128974848"),
            ("129e6", "129e6"),
            ("129M", "129M"),
            ("1E", "1E"),
            ("1E3", "1e3"),
            ("1500e0", "1500"),
            ("1e-3", "1e-3"),
            ("0", "0"),
            ("0Mi", "0"),
            ("1n", "1n"),
            ("0.1n", "1n"),
            ("1.0000000000000000000000000000000000000000000000000", "1"),
            ("1.0000000000000000000000000000000000000000000000001", "1000000001n"),
            ("1e-30", "1e-9"),
            ("9999999999999999999999E", "9223372036854775807"),
            (
                "12345678901234567890123456789012345678901234567890",
                "9223372036854775807",
            ),
        ] {
            assert_eq!(Quantity::parse(text).unwrap().to_string(), expected, "{text}");
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "", "m", ".", "1 Mi", "1mi", "1KB", "abc", "1e", "1e2x", "--1", "1.2.3", "1_000", "1K", " 1",
        ] {
            assert_eq!(Quantity::parse(text), Err(QuantityError(text.to_owned())));
        }
    }
}
