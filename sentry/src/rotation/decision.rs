//! What the renewal of the authority needs next. Pure: the stored state, the plan and the clock decide, so whichever replica
//! looks comes to the same step, and a restart loses nothing.

use time::{Duration, OffsetDateTime};

use crate::ca::{Pending, Standing};

/// How the authority is renewed. The defaults are upstream's.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Plan {
    /// `false` announces nothing new; what is announced is still completed.
    pub enabled: bool,
    /// Lifetime of generated roots and issuers.
    pub ttl: Duration,
    /// The part of its life after which an authority is renewed.
    pub threshold: f64,
    /// How long a root is announced before anything is signed below it: longer than it takes to get everywhere.
    pub grace: Duration,
    /// Backdating of certificates, for clocks that are behind.
    pub skew: Duration,
}

/// One change of what is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Generate the next root and issuer; the root becomes an anchor.
    Announce,
    /// The announced issuer signs from now on.
    Switch,
    /// Drop anchors that have expired.
    Retire,
    /// Take back an announced issuer that cannot be used.
    Abandon,
}

/// Why nobody but a person renews the authority.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unattended {
    /// It was supplied, and what was supplied is never replaced.
    Supplied,
    /// Renewal is switched off.
    Disabled,
}

/// What is to be done, and what is to be said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Decision {
    pub step: Option<Step>,
    /// When there is something to do without anything having changed.
    pub again: Option<OffsetDateTime>,
    /// When the announced issuer takes over.
    pub switchover: Option<OffsetDateTime>,
    /// The authority nears its end and will not be renewed.
    pub unattended: Option<Unattended>,
}

impl Plan {
    /// When an authority is due for renewal.
    fn due(&self, standing: &Standing) -> OffsetDateTime {
        // The part of its life before it was made, which is for slow clocks, does not count.
        let made = (standing.not_before + self.skew).min(standing.expires);
        made + (standing.expires - made) * self.threshold
    }
}

/// `supplied` says that the material is somebody's, whatever it looks like; `published`, since when everybody can read the
/// anchors, `None` while they cannot.
pub(crate) fn decide(
    plan: &Plan,
    standing: &Standing,
    supplied: bool,
    published: Option<OffsetDateTime>,
    now: OffsetDateTime,
) -> Decision {
    let generated = standing.generated && !supplied;
    let due = plan.due(standing);
    let mut decision = Decision::default();
    let retire = standing.superseded_until.filter(|_| generated);
    let retire = retire.map(|until| (Step::Retire, until.saturating_add(plan.skew)));
    let next = match &standing.pending {
        // Left over from before somebody supplied an authority, or broken.
        Some(_) if !generated => Some((Step::Abandon, now)),
        Some(Pending::Unusable(_)) => Some((Step::Abandon, now)),
        Some(Pending::Usable { not_before }) => {
            let last_call = standing.expires - plan.skew;
            let made = *not_before + plan.skew;
            let at = published.map_or(last_call, |published| (published.max(made) + plan.grace).min(last_call));
            decision.switchover = Some(at);
            Some((Step::Switch, at))
        }
        None if generated && plan.enabled => Some((Step::Announce, due)),
        None if now >= due => {
            let reason = if generated {
                Unattended::Disabled
            } else {
                Unattended::Supplied
            };
            decision.unattended = Some(reason);
            None
        }
        None => {
            decision.again = Some(due);
            None
        }
    };
    // What is broken goes first: nothing else could be computed from it.
    let retire = retire.filter(|_| !matches!(next, Some((Step::Abandon, _))));
    for (step, at) in retire.into_iter().chain(next) {
        if now >= at {
            decision.step.get_or_insert(step);
        } else {
            decision.again = Some(decision.again.map_or(at, |again| again.min(at)));
        }
    }
    decision
}

#[cfg(test)]
mod tests {
    use super::*;

    const YEAR: Duration = Duration::days(365);
    const SKEW: Duration = Duration::minutes(15);

    fn plan() -> Plan {
        Plan {
            enabled: true,
            ttl: YEAR,
            threshold: 0.9,
            grace: Duration::days(1),
            skew: SKEW,
        }
    }

    fn start() -> OffsetDateTime {
        OffsetDateTime::UNIX_EPOCH
    }

    fn steady() -> Standing {
        Standing {
            generated: true,
            not_before: start() - SKEW,
            expires: start() + YEAR,
            pending: None,
            superseded_until: None,
        }
    }

    fn pending_since(made: OffsetDateTime) -> Standing {
        Standing {
            pending: Some(Pending::Usable {
                not_before: made - SKEW,
            }),
            ..steady()
        }
    }

    fn step(standing: &Standing, published: Option<OffsetDateTime>, now: OffsetDateTime) -> Option<Step> {
        decide(&plan(), standing, false, published, now).step
    }

    #[test]
    fn announced_at_the_threshold() {
        let due = start() + YEAR * 0.9;
        let decision = decide(&plan(), &steady(), false, None, start());
        assert_eq!((decision.step, decision.again), (None, Some(due)));
        assert_eq!(step(&steady(), None, due - Duration::SECOND), None);
        assert_eq!(step(&steady(), None, due), Some(Step::Announce));
    }

    #[test]
    fn a_new_authority_is_never_due_at_once() {
        // However long certificates are backdated compared with their lives.
        let standing = Standing {
            expires: start() + Duration::minutes(3),
            ..steady()
        };
        let plan = Plan {
            threshold: 0.1,
            ..plan()
        };
        let decision = decide(&plan, &standing, false, None, start());
        assert_eq!(decision.again, Some(start() + Duration::seconds(18)));
        assert_eq!(decision.step, None);
    }

    #[test]
    fn the_switch_waits_for_the_grace_after_the_anchors_were_published() {
        let made = start() + YEAR * 0.9;
        let pending = pending_since(made);
        let day = Duration::days(1);
        assert_eq!(step(&pending, Some(made), made + day - Duration::SECOND), None);
        assert_eq!(step(&pending, Some(made), made + day), Some(Step::Switch));
        let late = made + Duration::hours(5);
        assert_eq!(step(&pending, Some(late), made + day), None);
        assert_eq!(step(&pending, Some(late), late + day), Some(Step::Switch));
        let decision = decide(&plan(), &pending, false, Some(late), late);
        assert_eq!(
            (decision.switchover, decision.again),
            (Some(late + day), Some(late + day))
        );
    }

    #[test]
    fn unpublished_anchors_hold_the_switch_up_to_the_last_moment() {
        let made = start() + YEAR * 0.9;
        let last_call = start() + YEAR - SKEW;
        assert_eq!(step(&pending_since(made), None, last_call - Duration::SECOND), None);
        assert_eq!(step(&pending_since(made), None, last_call), Some(Step::Switch));
        // A grace that does not fit into what is left ends there as well.
        let late = last_call - Duration::hours(1);
        assert_eq!(step(&pending_since(late), Some(late), last_call), Some(Step::Switch));
    }

    #[test]
    fn expired_anchors_are_retired_after_the_skew_and_before_anything_else() {
        let standing = Standing {
            superseded_until: Some(start()),
            ..steady()
        };
        assert_eq!(step(&standing, None, start()), None);
        assert_eq!(
            decide(&plan(), &standing, false, None, start()).again,
            Some(start() + SKEW)
        );
        assert_eq!(step(&standing, None, start() + SKEW), Some(Step::Retire));
        assert_eq!(step(&standing, None, start() + YEAR), Some(Step::Retire));
    }

    #[test]
    fn what_was_supplied_is_never_replaced() {
        let due = start() + YEAR * 0.9;
        let foreign = Standing {
            generated: false,
            superseded_until: Some(start()),
            ..steady()
        };
        for (standing, supplied) in [(&foreign, false), (&steady(), true)] {
            let before = decide(&plan(), standing, supplied, None, due - Duration::SECOND);
            assert_eq!((before.step, before.unattended, before.again), (None, None, Some(due)));
            let after = decide(&plan(), standing, supplied, None, due);
            assert_eq!((after.step, after.unattended), (None, Some(Unattended::Supplied)));
        }
        let leftover = pending_since(due);
        let decision = decide(&plan(), &leftover, true, Some(due), due + YEAR);
        assert_eq!(decision.step, Some(Step::Abandon), "our own announcement is taken back");
    }

    #[test]
    fn a_broken_announcement_is_taken_back() {
        let standing = Standing {
            pending: Some(Pending::Unusable("half".into())),
            ..steady()
        };
        assert_eq!(step(&standing, None, start()), Some(Step::Abandon));
    }

    #[test]
    fn switched_off_it_completes_what_was_begun() {
        let plan = Plan {
            enabled: false,
            ..plan()
        };
        let due = start() + YEAR * 0.9;
        let decision = decide(&plan, &steady(), false, None, due);
        assert_eq!((decision.step, decision.unattended), (None, Some(Unattended::Disabled)));
        let switched = decide(&plan, &pending_since(due), false, Some(due), due + Duration::days(1));
        assert_eq!(switched.step, Some(Step::Switch));
    }
}
