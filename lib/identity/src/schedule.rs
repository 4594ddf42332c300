//! When to renew, and how much it matters that renewing fails.

use std::time::{Duration, SystemTime};

use outrigger_core::backoff::random_fraction;

use crate::svid::Svid;

/// Renewals are at least this far apart, however short the lives of the certificates.
const MIN_PAUSE: Duration = Duration::from_millis(500);

/// The wall clock is looked at this often: it may be set, and timers stop while a machine sleeps.
const CLOCK_CHECK: Duration = Duration::from_secs(60);

/// How near the expiry of a certificate is, by the share of its life that is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Urgency {
    /// There is time for many more attempts.
    Calm,
    /// A quarter is left: half of the attempts have failed.
    Near,
    /// A fiftieth is left. Peers whose clocks are ahead by the usual allowance refuse the certificate now.
    Last,
    Expired,
}

/// Half of the life, up to a tenth of the wait earlier, so that a fleet started together does not renew together. Certificates
/// of an authority that is about to expire are past the half when they arrive: then half of what is left, or clients would
/// ask without a pause. Tokens count from the moment they arrive, as upstream counts them.
pub(crate) fn renewal_time(svid: &Svid, now: SystemTime) -> SystemTime {
    let left = svid.not_after().duration_since(now).unwrap_or_default();
    let mut due = match svid.renew_at().duration_since(now) {
        Ok(until) if until > MIN_PAUSE => until,
        _ => left / 2,
    };
    if let Some(expiry) = svid.jwts().first_expiry() {
        due = due.min(expiry.duration_since(now).unwrap_or_default() / 2);
    }
    now + (due - (due / 10).mul_f64(random_fraction())).max(MIN_PAUSE)
}

/// How long to wait before the clock is looked at again; `None` once it is time.
pub(crate) fn pause(due: SystemTime, now: SystemTime) -> Option<Duration> {
    let left = due.duration_since(now).ok().filter(|left| !left.is_zero());
    left.map(|left| left.min(CLOCK_CHECK))
}

pub(crate) fn urgency(svid: &Svid, now: SystemTime) -> Urgency {
    let life = svid.not_after().duration_since(svid.not_before()).unwrap_or_default();
    match svid.not_after().duration_since(now) {
        Ok(left) if left > life / 4 => Urgency::Calm,
        Ok(left) if left > life / 50 => Urgency::Near,
        Ok(left) if !left.is_zero() => Urgency::Last,
        _ => Urgency::Expired,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::svid::tests::svid;

    fn at(seconds: f64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs_f64(seconds)
    }

    #[test]
    fn a_clock_that_jumps_delays_nothing_by_more_than_a_minute() {
        let due = at(10_000.0);
        assert_eq!(pause(due, at(1000.0)), Some(CLOCK_CHECK));
        assert_eq!(pause(due, at(9990.0)), Some(Duration::from_secs(10)));
        // Set forward, or awake after a long sleep.
        for now in [10_000.0, 10_001.0, 1e9] {
            assert_eq!(pause(due, at(now)), None, "{now}");
        }
        // Set back: whoever looks at the certificate has the same clock.
        assert_eq!(pause(due, at(0.0)), Some(CLOCK_CHECK));
    }

    #[test]
    fn renews_at_half_of_the_life_or_a_little_earlier() {
        let svid = svid(1000, 3000);
        for _ in 0..100 {
            let due = renewal_time(&svid, at(1000.0));
            assert!(at(1900.0) <= due && due <= at(2000.0), "{due:?}");
        }
    }

    #[test]
    fn a_fleet_spreads_over_the_tenth() {
        let svid = svid(1000, 3000);
        let times: Vec<_> = (0..200).map(|_| renewal_time(&svid, at(1000.0))).collect();
        assert!(times.iter().any(|due| *due < at(1930.0)) && times.iter().any(|due| *due > at(1970.0)));
    }

    #[test]
    fn never_without_a_pause() {
        let svid = svid(1000, 3000);
        let due = renewal_time(&svid, at(2200.0));
        assert!(at(2560.0) <= due && due <= at(2600.0), "half of what is left: {due:?}");
        for late in [2999.9, 4000.0] {
            assert_eq!(renewal_time(&svid, at(late)), at(late) + MIN_PAUSE);
        }
    }

    #[test]
    fn grows_urgent_as_the_expiry_nears() {
        let svid = svid(1000, 3000);
        for (time, expected) in [
            (1000.0, Urgency::Calm),
            (2499.0, Urgency::Calm),
            (2500.0, Urgency::Near),
            (2959.0, Urgency::Near),
            (2960.0, Urgency::Last),
            (2999.9, Urgency::Last),
            (3000.0, Urgency::Expired),
            (9000.0, Urgency::Expired),
        ] {
            assert_eq!(urgency(&svid, at(time)), expected, "{time}");
        }
    }
}
