//! The programs of a node: when one ends, the node ends.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};

use tokio::process::Command;
use tokio::task::JoinSet;

use super::Error;
use super::layout::Layout;
use super::programs::Program;
use crate::command;

pub(super) struct Processes<'a> {
    layout: &'a Layout,
    running: JoinSet<(&'static str, io::Result<ExitStatus>)>,
}

impl<'a> Processes<'a> {
    pub(super) fn new(layout: &'a Layout) -> Self {
        Self {
            layout,
            running: JoinSet::new(),
        }
    }

    /// Starts a program with its log in the cluster's folder.
    pub(super) fn start(&mut self, program: Program) -> Result<(), Error> {
        let Program { name, file, args } = program;
        let failed = || Error::prepare(format!("start {name}"));
        let log = File::create(self.layout.folder.log(name)).map_err(failed())?;
        let mut command = Command::new(self.layout.program(file));
        // The multi-call binary takes the program's name first.
        if file == "kubernetes" {
            command.arg(name);
        }
        command
            .args(args)
            .env_clear()
            .env("PATH", search_path(&self.layout.bin))
            .env("HOME", "/root");
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(failed())?)
            .stderr(log);
        let mut child = command.spawn().map_err(failed())?;
        self.running.spawn(async move { (name, child.wait().await) });
        Ok(())
    }

    /// Runs a task of this process in the same way.
    pub(super) fn keep(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.running.spawn(async move {
            task.await;
            (name, Err(io::Error::other("it never should")))
        });
    }

    /// Does something that makes sense only while all programs run.
    pub(super) async fn during<T>(&mut self, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        tokio::select! {
            result = work => result,
            error = self.ended() => Err(error),
        }
    }

    /// Waits until a program ends, which none should.
    pub(super) async fn ended(&mut self) -> Error {
        let (program, status) = match self.running.join_next().await {
            Some(Ok((name, Ok(status)))) => (name, status.to_string()),
            Some(Ok((name, Err(error)))) => (name, error.to_string()),
            Some(Err(error)) => ("a task", error.to_string()),
            None => ("the node", "nothing runs".to_owned()),
        };
        Error::Ended {
            program: program.to_owned(),
            status,
            log: self.layout.folder.log(program),
        }
    }
}

/// Nothing of the caller's environment gets in: a proxy variable, for one, would keep the API server from its webhooks.
fn search_path(bin: &std::path::Path) -> std::ffi::OsString {
    let folders = std::iter::once(PathBuf::from(bin)).chain(command::search_path());
    std::env::join_paths(folders).unwrap_or_default()
}
