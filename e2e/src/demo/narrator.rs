//! What people see: one line for each step with its duration, the commands it ran, and what changed.

use std::{
    fmt::Display,
    io::Write,
    time::{Duration, Instant},
};

/// Width of a step's title, so that durations stand below each other.
const TITLE: usize = 72;

/// Counts the steps and prints them.
#[derive(Default)]
pub(super) struct Narrator {
    steps: usize,
}

/// A step in progress.
pub(super) struct Step {
    started: Instant,
    lines: Vec<String>,
}

impl Narrator {
    /// Announces a step; its line is completed by [`Narrator::done`].
    pub(super) fn begin(&mut self, title: &str) -> Step {
        self.steps += 1;
        print!("{:>2}. {title:<TITLE$}", self.steps);
        // Nothing can be done about a closed terminal.
        let _ = std::io::stdout().flush();
        Step {
            started: Instant::now(),
            lines: Vec::new(),
        }
    }

    /// Ends a step: its duration, its commands, and what changed.
    pub(super) fn done(&self, step: Step, changed: &[String]) {
        println!("{:>8}", seconds(step.started.elapsed()));
        for command in step.lines {
            println!("      {command}");
        }
        for line in changed {
            println!("    → {line}");
        }
    }
}

impl Step {
    /// Notes a command as people would type it.
    pub(super) fn ran(&mut self, command: impl Display) {
        self.lines.push(format!("$ {command}"));
    }

    /// Notes a line that a command printed.
    pub(super) fn printed(&mut self, output: &str) {
        self.lines.extend(output.lines().map(|line| format!("  {line}")));
    }
}

pub(super) fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}

pub(super) fn milliseconds(duration: Duration) -> String {
    format!("{} ms", duration.as_millis())
}
