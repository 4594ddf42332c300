//! What a node says about itself while it starts and when it ends: lines in a file, written by the node only.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// One step in the life of a node.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum Event {
    /// Something is done, so long after the start.
    Step { after: Duration, text: String },
    /// The cluster can be used, so long after the start.
    Ready { after: Duration },
    /// The node has ended.
    Failed { text: String, log: Option<PathBuf> },
}

pub(crate) struct Journal {
    file: File,
    start: Instant,
}

impl Journal {
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        Ok(Self {
            file: File::options().create(true).append(true).open(path)?,
            start: Instant::now(),
        })
    }

    pub(crate) fn step(&mut self, text: &str) {
        let after = self.start.elapsed();
        self.write(&Event::Step {
            after,
            text: text.to_owned(),
        });
    }

    pub(crate) fn ready(&mut self) {
        let after = self.start.elapsed();
        self.write(&Event::Ready { after });
    }

    pub(crate) fn failed(&mut self, text: String, log: Option<PathBuf>) {
        self.write(&Event::Failed { text, log });
    }

    fn write(&mut self, event: &Event) {
        let line = serde_json::to_string(event).unwrap_or_default();
        // In one write, so that readers see whole lines. A full disk shows in what reads it: the start times out.
        let _ = self.file.write_all(format!("{line}\n").as_bytes());
    }
}

/// All events so far; none when the node never ran.
pub(crate) fn read(path: &Path) -> Vec<Event> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_back_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        assert_eq!(read(&path), []);
        let mut journal = Journal::create(&path).unwrap();
        journal.step("API server ready");
        journal.ready();
        journal.failed("kubelet ended".into(), Some("/logs/kubelet.log".into()));
        let events = read(&path);
        assert!(matches!(&events[0], Event::Step { text, .. } if text == "API server ready"));
        assert!(matches!(&events[1], Event::Ready { .. }));
        assert_eq!(
            events[2],
            Event::Failed {
                text: "kubelet ended".into(),
                log: Some("/logs/kubelet.log".into())
            }
        );
    }
}
