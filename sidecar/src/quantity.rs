//! Kubernetes quantities such as `4Mi`, as far as sizes in bytes need them.

/// Parses a quantity and rounds fractions of a byte up, as Kubernetes does.
///
/// # Errors
/// Says what was found and what was expected.
pub fn bytes(text: &str) -> Result<i64, String> {
    let malformed = || format!("{text:?} is not a size: expected a quantity such as 4Mi, 512Ki or 4000000");
    let digits = text
        .find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '+' | '-')))
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let number: f64 = number.parse().map_err(|_| malformed())?;
    let scale = match suffix {
        "" => 1.0,
        "m" => 1e-3,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "Ki" => 1024_f64,
        "Mi" => 1024_f64.powi(2),
        "Gi" => 1024_f64.powi(3),
        "Ti" => 1024_f64.powi(4),
        _ => match suffix.strip_prefix(['e', 'E']).map(str::parse::<i32>) {
            Some(Ok(exponent)) if exponent.abs() < 16 => 10_f64.powi(exponent),
            _ => return Err(malformed()),
        },
    };
    let value = (number * scale).ceil();
    // Up to 2^53 every whole number is exact.
    if value.is_finite() && value.abs() < 9.0e15 {
        #[allow(clippy::cast_possible_truncation)]
        return Ok(value as i64);
    }
    Err(malformed())
}

#[cfg(test)]
mod tests {
    use super::bytes;

    #[test]
    fn reads_the_forms_that_kubernetes_reads() {
        for (text, expected) in [
            ("4Mi", 4 << 20),
            ("4Ki", 4096),
            ("1.5Gi", 3 << 29),
            ("4M", 4_000_000),
            ("100", 100),
            ("1e3", 1000),
            ("-1", -1),
            ("500m", 1),
        ] {
            assert_eq!(bytes(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn says_what_is_wrong() {
        for text in ["", "4MB", "Mi", "4 Mi", "1e99", "NaN"] {
            assert!(bytes(text).unwrap_err().contains("is not a size"), "{text:?}");
        }
    }
}
