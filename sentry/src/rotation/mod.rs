//! Renewal of the certificate authority, ahead of its expiry and without anybody noticing.
//!
//! [`decide`] says what comes next, [`crate::ca::announce`] and its siblings what is stored then, and [`Reporter`] tells people.

mod decision;
mod reporter;

pub(crate) use decision::{Decision, Plan, Step, Unattended, decide};
pub(crate) use reporter::{RenewalMetrics, Reporter};

use time::OffsetDateTime;

use crate::ca::{self, Material, Profile, SuccessionError};

/// What is stored after a step.
///
/// # Errors
/// Material that cannot be used.
pub(crate) fn prepare(
    step: Step,
    material: &Material,
    profile: &Profile,
    now: OffsetDateTime,
) -> Result<Material, SuccessionError> {
    match step {
        Step::Announce => ca::announce(material, profile, now),
        Step::Switch => ca::switch(material, now),
        Step::Retire => ca::retire(material, profile.skew, now),
        Step::Abandon => ca::abandon(material, now),
    }
}
