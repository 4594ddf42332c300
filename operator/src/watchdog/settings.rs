//! How the watchdog is run.

use std::time::Duration;

use outrigger_core::GoDuration;

/// How it is run.
#[derive(Debug, Clone)]
pub struct Settings {
    pub mode: Mode,
    /// Evictions in a minute, at most; 0 or less means no limit.
    pub per_minute: i64,
    /// Whether pods that have a sidecar are labelled.
    pub can_label: bool,
}

/// How long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Until nothing is left to be done.
    Once,
    /// For ever, looking again at least this often.
    Every(Duration),
}

impl Mode {
    /// Reads the flag `watch-interval`; `None` switches the watchdog off.
    ///
    /// # Errors
    /// Says what was expected.
    pub fn parse(text: &str) -> Result<Option<Self>, String> {
        let text = text.to_lowercase();
        match text.as_str() {
            "0" | "false" | "f" | "no" | "off" => return Ok(None),
            "once" => return Ok(Some(Self::Once)),
            _ => {}
        }
        let invalid = |why: String| format!("invalid value for --watch-interval: {why}");
        let interval = GoDuration::parse(&text).map_err(|error| invalid(error.to_string()))?;
        let interval = interval.as_std();
        if interval < Duration::from_secs(1) {
            return Err(invalid(format!("{text:?} is shorter than 1s")));
        }
        Ok(Some(Self::Every(interval)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_is_read_as_upstream_reads_it() {
        for off in ["0", "false", "F", "no", "OFF"] {
            assert_eq!(Mode::parse(off), Ok(None), "{off}");
        }
        assert_eq!(Mode::parse("Once"), Ok(Some(Mode::Once)));
        assert_eq!(Mode::parse("1m30s"), Ok(Some(Mode::Every(Duration::from_secs(90)))));
        for bad in ["", "5", "999ms", "-1m", "daily"] {
            assert!(
                Mode::parse(bad)
                    .unwrap_err()
                    .starts_with("invalid value for --watch-interval: "),
                "{bad}"
            );
        }
    }
}
