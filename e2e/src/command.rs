//! Running other programs, with errors that people can repeat in their shell.

use std::ffi::OsStr;
use std::io;
use std::path::PathBuf;
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};
use tokio::time::{Duration, timeout};

/// More than what pods are given to end.
const GRACE: Duration = Duration::from_secs(60);

/// A program that did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("could not run `{line}`")]
    Start { line: String, source: io::Error },
    #[error("`{line}` failed ({status}): {message}")]
    Failed {
        line: String,
        status: String,
        message: String,
    },
}

/// Ends a program as a kubelet does: asks, waits, and kills when it does not end by itself. What a program writes at its end is
/// written then.
///
/// # Errors
/// When it had to be killed, or ended with a failure, now or before.
pub(crate) async fn end(child: &mut Child) -> io::Result<()> {
    if let Some(pid) = child.id().and_then(|pid| Pid::from_raw(pid.cast_signed())) {
        kill_process(pid, Signal::TERM)?;
    }
    let Ok(status) = timeout(GRACE, child.wait()).await else {
        child.kill().await?;
        return Err(io::Error::other(format!("it did not end within {GRACE:?}")));
    };
    match status? {
        status if status.success() => Ok(()),
        status => Err(io::Error::other(format!("it ended with {status}"))),
    }
}

/// Runs to the end and returns standard output. The program is killed when the caller gives up waiting.
pub async fn run(command: Command) -> Result<String, Error> {
    run_with_input(command, None).await
}

/// As [`run`], with a text as standard input.
pub async fn run_with_input(mut command: Command, input: Option<&str>) -> Result<String, Error> {
    let line = line_of(command.as_std());
    let failed = |source| Error::Start {
        line: line.clone(),
        source,
    };
    if input.is_some() {
        command.stdin(Stdio::piped());
    }
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)?;
    let pipe = child.stdin.take();
    let write = async {
        if let (Some(mut pipe), Some(text)) = (pipe, input) {
            // A program that ends without reading says why in its status.
            let _ = pipe.write_all(text.as_bytes()).await;
        }
    };
    let (output, ()) = tokio::join!(child.wait_with_output(), write);
    let output = output.map_err(failed)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let message = [&output.stderr, &output.stdout].map(|bytes| String::from_utf8_lossy(bytes).trim().to_owned());
    let message = message
        .into_iter()
        .find(|text| !text.is_empty())
        .unwrap_or_else(|| "it printed nothing".into());
    Err(Error::Failed {
        line,
        status: output.status.to_string(),
        message,
    })
}

/// The command as one types it, with the environment that was set for it in front.
pub fn line_of(command: &std::process::Command) -> String {
    let variables = command
        .get_envs()
        .filter_map(|(name, value)| value.map(|value| format!("{}={}", name.to_string_lossy(), quote(value))));
    let words = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(quote);
    variables.chain(words).collect::<Vec<_>>().join(" ")
}

fn quote(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.into_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// The folders of a root's PATH, besides those of the caller: ordinary users often lack `sbin`.
pub fn search_path() -> Vec<PathBuf> {
    let own = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"].map(PathBuf::from);
    std::env::split_paths(&own)
        .filter(|path| path.is_absolute())
        .chain(system)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn output_comes_back_and_input_goes_in() {
        assert_eq!(run_with_input(Command::new("cat"), Some("text")).await.unwrap(), "text");
    }

    #[tokio::test]
    async fn failures_show_the_line_to_repeat() {
        let mut command = Command::new("sh");
        command
            .args(["-c", "echo it\\'s broken >&2; exit 3"])
            .env("COLOUR", "light blue");
        let error = run(command).await.unwrap_err().to_string();
        let line = r"`COLOUR='light blue' sh -c 'echo it\'\''s broken >&2; exit 3'`";
        assert_eq!(error, format!("{line} failed (exit status: 3): it's broken"));
    }

    #[tokio::test]
    async fn missing_programs_are_named() {
        let error = run(Command::new("/no/such/program")).await.unwrap_err().to_string();
        assert!(error.contains("/no/such/program"), "{error}");
    }
}
