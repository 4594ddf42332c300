//! A program as a process of its own, and what it uses, from `/proc`.

use std::{fmt, fs, net::Ipv4Addr, ops::Sub, time::Duration};

use anyhow::{Context, bail};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    process::{Child, Command},
    time::{Instant, sleep},
};

use crate::command::end;

const READY_DEADLINE: Duration = Duration::from_secs(60);

/// A running program; it ends with this.
pub(super) struct Process {
    child: Child,
    pub(super) pid: u32,
}

impl Process {
    /// Starts a program and waits until it says on its health port that it is ready.
    pub(super) async fn start(command: &mut Command, health: u16) -> anyhow::Result<Self> {
        let program = command.as_std().get_program().display().to_string();
        let mut child = command
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("start {program}"))?;
        let deadline = Instant::now() + READY_DEADLINE;
        while !get(health, "/healthz")
            .await
            .is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
        {
            if let Some(status) = child.try_wait()? {
                bail!("{program} ended: {status}");
            }
            if Instant::now() > deadline {
                let detail = get(health, "/healthz/detail").await.unwrap_or_default();
                bail!("{program} did not become ready: {detail}");
            }
            sleep(Duration::from_millis(5)).await;
        }
        let pid = child.id().with_context(|| format!("{program} has ended"))?;
        Ok(Self { child, pid })
    }

    /// Ends it and waits.
    pub(super) async fn stop(mut self) -> anyhow::Result<()> {
        end(&mut self.child).await.context("stop a process")
    }
}

/// The answer to a GET on this machine, with its head.
pub(super) async fn get(port: u16, path: &str) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

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
