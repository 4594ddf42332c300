//! What the sidecars that are connected to this replica have said, and its sums. No I/O, no clock.
//!
//! Names and texts are shared between sidecars: a verdict of a thousand sidecars on the same object costs each of them an entry of a
//! few words. `cargo test --lib ledger -- --ignored --nocapture` prints how much that is.

mod feed;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap, HashSet},
    hash::Hash,
    sync::Arc,
};

use parking_lot::Mutex;

pub use self::feed::Feed;
use self::feed::Open;
use super::{State, Verdict};

/// Messages of one sidecar that are kept, in bytes. Of further rejections it is known that and why, without a message.
const MESSAGES: usize = 64 * 1024;

/// All reports of this replica's sidecars.
#[derive(Default)]
pub struct Ledger {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    texts: Texts,
    last: u64,
    reporters: HashMap<u64, Reporter>,
    apps: HashMap<App, Attending>,
    sums: HashMap<Object, Sum>,
    feed: Option<Open>,
}

/// An app of a namespace.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct App {
    namespace: Arc<str>,
    name: Arc<str>,
}

/// What sums are made for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Object {
    app: App,
    kind: &'static str,
    name: Arc<str>,
    generation: i64,
}

/// A sidecar that reports.
struct Reporter {
    app: App,
    pod: Arc<str>,
    follows: Box<[&'static str]>,
    verdicts: BTreeMap<(&'static str, Arc<str>), Standing>,
    /// Bytes of the messages that are kept.
    messages: usize,
}

/// What a sidecar says of an object now.
#[derive(Clone, Copy)]
struct Standing {
    generation: i64,
    /// When it was rejected; `None` if it is loaded.
    rejected_at: Option<i64>,
}

#[derive(Default)]
struct Attending {
    sidecars: u32,
    followers: BTreeMap<&'static str, u32>,
}

#[derive(Default)]
struct Sum {
    loaded: u32,
    /// Newest first, by reporter.
    rejections: BTreeMap<(Reverse<i64>, u64), Cause>,
}

struct Cause {
    reason: Arc<str>,
    message: Arc<str>,
}

/// Texts that are held once.
#[derive(Default)]
struct Texts {
    all: HashSet<Arc<str>>,
    /// Unused ones are thrown away at this number.
    sweep_at: usize,
}

impl Texts {
    fn share(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.all.get(text) {
            return known.clone();
        }
        if self.all.len() >= self.sweep_at {
            self.all.retain(|text| Arc::strong_count(text) > 1);
            self.sweep_at = (self.all.len() * 2).max(1024);
        }
        let new: Arc<str> = text.into();
        self.all.insert(new.clone());
        new
    }
}

/// A sidecar that holds a stream, until this is dropped.
pub struct Attended {
    ledger: Arc<Ledger>,
    app: App,
}

/// The verdicts of a connected sidecar, which count until this is dropped.
pub struct Entry {
    ledger: Arc<Ledger>,
    id: u64,
}

impl Ledger {
    /// Counts a sidecar as connected.
    pub fn attend(self: &Arc<Self>, namespace: &str, app: &str) -> Attended {
        let mut inner = self.inner.lock();
        let app = inner.app(namespace, app);
        inner.attendance(&app, |attending| attending.sidecars += 1);
        Attended {
            ledger: self.clone(),
            app,
        }
    }

    /// Takes in a sidecar that reports, with all that it has judged. `follows` are the kinds whose changes it will judge.
    pub fn enter(
        self: &Arc<Self>,
        (namespace, app): (&str, &str),
        pod: &str,
        follows: &[&'static str],
        verdicts: &[Verdict<'_>],
    ) -> Entry {
        let mut inner = self.inner.lock();
        inner.last += 1;
        let id = inner.last;
        let app = inner.app(namespace, app);
        let pod = inner.texts.share(pod);
        let reporter = Reporter {
            app: app.clone(),
            pod,
            follows: follows.into(),
            verdicts: BTreeMap::new(),
            messages: 0,
        };
        inner.reporters.insert(id, reporter);
        inner.attendance(&app, |attending| {
            for kind in follows {
                *attending.followers.entry(kind).or_default() += 1;
            }
        });
        for verdict in verdicts {
            inner.judge(id, verdict);
        }
        Entry {
            ledger: self.clone(),
            id,
        }
    }
}

impl Entry {
    /// Takes in what the sidecar has judged since. Returns how many objects it has judged in all.
    pub fn judge(&self, verdicts: &[Verdict<'_>]) -> usize {
        let mut inner = self.ledger.inner.lock();
        for verdict in verdicts {
            inner.judge(self.id, verdict);
        }
        let reporter = inner.reporters.get(&self.id);
        reporter.map_or(0, |reporter| reporter.verdicts.len())
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut inner = self.ledger.inner.lock();
        let Some(mut reporter) = inner.reporters.remove(&self.id) else {
            return;
        };
        for ((kind, name), standing) in std::mem::take(&mut reporter.verdicts) {
            let object = Object {
                app: reporter.app.clone(),
                kind,
                name,
                generation: standing.generation,
            };
            inner.withdraw(self.id, &object, standing);
        }
        inner.attendance(&reporter.app, |attending| {
            for kind in &reporter.follows {
                if let Some(count) = attending.followers.get_mut(kind) {
                    *count -= 1;
                }
            }
        });
    }
}

impl Drop for Attended {
    fn drop(&mut self) {
        let mut inner = self.ledger.inner.lock();
        inner.attendance(&self.app, |attending| attending.sidecars -= 1);
    }
}

impl Inner {
    fn app(&mut self, namespace: &str, name: &str) -> App {
        App {
            namespace: self.texts.share(namespace),
            name: self.texts.share(name),
        }
    }

    fn attendance(&mut self, app: &App, change: impl FnOnce(&mut Attending)) {
        let attending = self.apps.entry(app.clone()).or_default();
        change(attending);
        attending.followers.retain(|_, count| *count > 0);
        if attending.sidecars == 0 && attending.followers.is_empty() {
            self.apps.remove(app);
        }
        if let Some(feed) = &mut self.feed {
            feed.add_app(app);
        }
    }

    fn judge(&mut self, id: u64, verdict: &Verdict<'_>) {
        let (kind, name) = (verdict.kind, self.texts.share(verdict.name));
        let Some(reporter) = self.reporters.get_mut(&id) else {
            return;
        };
        let app = reporter.app.clone();
        let subject = (kind, name.clone());
        let object = |generation| Object {
            app: app.clone(),
            kind,
            name: name.clone(),
            generation,
        };
        let before = match verdict.state {
            State::Removed => reporter.verdicts.remove(&subject),
            State::Loaded | State::Rejected { .. } => reporter.verdicts.insert(subject, verdict.standing()),
        };
        if let Some(before) = before {
            self.withdraw(id, &object(before.generation), before);
        }
        let object = object(verdict.generation);
        match verdict.state {
            State::Removed => return,
            State::Loaded => self.sums.entry(object.clone()).or_default().loaded += 1,
            State::Rejected { reason, message } => {
                let kept = self.reporters.get_mut(&id).is_some_and(|reporter| {
                    let fits = reporter.messages + message.len() <= MESSAGES;
                    reporter.messages += if fits { message.len() } else { 0 };
                    fits
                });
                let cause = Cause {
                    reason: self.texts.share(reason),
                    message: self.texts.share(if kept { message } else { "" }),
                };
                let sum = self.sums.entry(object.clone()).or_default();
                sum.rejections.insert((Reverse(verdict.judged_at), id), cause);
            }
        }
        self.changed(object);
    }

    /// Takes a verdict out of the sums.
    fn withdraw(&mut self, id: u64, object: &Object, standing: Standing) {
        let Some(sum) = self.sums.get_mut(object) else {
            return;
        };
        match standing.rejected_at {
            None => sum.loaded -= 1,
            Some(at) => {
                let cause = sum.rejections.remove(&(Reverse(at), id));
                if let (Some(cause), Some(reporter)) = (cause, self.reporters.get_mut(&id)) {
                    reporter.messages -= cause.message.len();
                }
            }
        }
        if sum.loaded == 0 && sum.rejections.is_empty() {
            self.sums.remove(object);
        }
        self.changed(object.clone());
    }
}

impl Verdict<'_> {
    fn standing(&self) -> Standing {
        let rejected = matches!(self.state, State::Rejected { .. });
        Standing {
            generation: self.generation,
            rejected_at: rejected.then_some(self.judged_at),
        }
    }
}

#[cfg(test)]
mod tests;
