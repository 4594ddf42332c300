//! An injector that did not answer: whoever asks next does not wait for it too.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::review::Verdict;

/// How long it is taken for granted, while nothing about the injector changes.
const KEEP: Duration = Duration::from_secs(5);

/// The last silence.
#[derive(Debug, Default)]
pub(super) struct Silence(Mutex<Option<Noted>>);

#[derive(Debug)]
struct Noted {
    at: Instant,
    version: u64,
    why: String,
}

impl Silence {
    /// Takes in what came of a question. `version` is that of what was known of the injector when it was asked.
    pub(super) fn note(&self, verdict: &Verdict, version: u64, at: Instant) {
        *self.0.lock() = match verdict {
            Verdict::Unreachable(why) => Some(Noted {
                at,
                version,
                why: why.clone(),
            }),
            // Also that it answers nonsense, which may be due to the one pod.
            Verdict::Injects | Verdict::Refuses(_) | Verdict::Failed(_) => None,
        };
    }

    /// What would come of a question now, if that is known.
    pub(super) fn verdict(&self, version: u64, now: Instant) -> Option<Verdict> {
        let noted = self.0.lock();
        let noted = noted.as_ref()?;
        let lasts = noted.version == version && now < noted.at + KEEP;
        lasts.then(|| Verdict::Unreachable(noted.why.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_lasts_until_the_injector_changes_or_answers_or_a_while_has_passed() {
        let now = Instant::now();
        let silent = Verdict::Unreachable("no answer".into());
        let silence = Silence::default();
        assert_eq!(silence.verdict(1, now), None);
        silence.note(&silent, 1, now);
        assert_eq!(silence.verdict(1, now), Some(silent.clone()));
        assert_eq!(silence.verdict(2, now), None);
        assert_eq!(silence.verdict(1, now + KEEP), None);
        silence.note(&Verdict::Failed("nonsense".into()), 1, now);
        assert_eq!(silence.verdict(1, now), None);
    }
}
