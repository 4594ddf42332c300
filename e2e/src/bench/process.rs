//! What a process on this machine uses, from `/proc`.

use std::{fmt, fs, ops::Sub, time::Duration};

use anyhow::Context;

/// Resident and anonymous memory, in MiB.
#[derive(Debug, Clone, Copy)]
pub(super) struct Memory {
    pub(super) resident: f64,
    pub(super) anonymous: f64,
}

impl Memory {
    pub(super) fn of(pid: u32) -> anyhow::Result<Self> {
        Ok(Self {
            resident: field(pid, "VmRSS:")?,
            anonymous: field(pid, "RssAnon:")?,
        })
    }

    /// The most that was ever resident, in MiB.
    pub(super) fn peak(pid: u32) -> anyhow::Result<f64> {
        field(pid, "VmHWM:")
    }
}

fn field(pid: u32, name: &str) -> anyhow::Result<f64> {
    let path = format!("/proc/{pid}/status");
    let status = fs::read_to_string(&path).context(path)?;
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let kilobytes = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<f64>().ok());
    Ok(kilobytes.with_context(|| format!("no {name}"))? / 1024.0)
}

impl Sub for Memory {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self {
            resident: self.resident - other.resident,
            anonymous: self.anonymous - other.anonymous,
        }
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} MiB ({:.1} anonymous)", self.resident, self.anonymous)
    }
}

/// CPU time of all threads, to the nanosecond; those that have ended do not count.
#[derive(Debug, Clone, Copy)]
pub(super) struct Usage(Duration);

impl Usage {
    pub(super) fn of(pid: u32) -> anyhow::Result<Self> {
        let mut total = 0;
        let tasks = format!("/proc/{pid}/task");
        for task in fs::read_dir(&tasks).context(tasks)? {
            // A thread may end between the two reads.
            if let Ok(text) = fs::read_to_string(task?.path().join("schedstat")) {
                total += text.split(' ').next().and_then(|word| word.parse().ok()).unwrap_or(0);
            }
        }
        Ok(Self(Duration::from_nanos(total)))
    }
}

impl Sub for Usage {
    type Output = Duration;

    fn sub(self, other: Self) -> Duration {
        self.0.saturating_sub(other.0)
    }
}
