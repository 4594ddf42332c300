//! Builds the Kubernetes programs from Go modules, once for each content of their sources.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use outrigger_testkit::toolchain::{self, Toolchain};

use crate::command;
use crate::image::{self, Image};

/// The image that holds a pod's namespaces.
pub const PAUSE_IMAGE: &str = "localhost/pause:1";

/// How often a long compilation says that it goes on.
const SIGN_OF_LIFE: Duration = Duration::from_secs(15);
/// How many lines of a failed compilation are shown.
const SHOWN: usize = 40;

/// Why the programs could not be built.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Toolchain(#[from] toolchain::Error),
    #[error("could not use {path}")]
    File { path: PathBuf, source: io::Error },
    #[error("{path} requires no {module}")]
    Version { path: PathBuf, module: String },
    #[error("could not start `{line}`")]
    Start { line: String, source: io::Error },
    #[error("`{line}` in {folder} failed; the end of what it printed:\n{output}")]
    Failed {
        line: String,
        folder: PathBuf,
        output: String,
    },
    #[error(transparent)]
    Image(#[from] image::Error),
}

/// One program: its name, the module's folder, the Go package, and the names it is called by besides its own.
struct Program {
    name: &'static str,
    module: &'static str,
    package: &'static str,
    aliases: &'static [&'static str],
}

const fn program(name: &'static str, package: &'static str) -> Program {
    Program {
        name,
        module: "",
        package,
        aliases: &[],
    }
}

const PROGRAMS: [Program; 11] = [
    Program {
        aliases: &["kubectl"],
        ..program("kubernetes", "./cmd/kubernetes")
    },
    program("helm", "helm.sh/helm/v4/cmd/helm"),
    program("containerd", "github.com/containerd/containerd/v2/cmd/containerd"),
    program(
        "containerd-shim-runc-v2",
        "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2",
    ),
    program("ctr", "github.com/containerd/containerd/v2/cmd/ctr"),
    program("bridge", "github.com/containernetworking/plugins/plugins/main/bridge"),
    program(
        "loopback",
        "github.com/containernetworking/plugins/plugins/main/loopback",
    ),
    program(
        "host-local",
        "github.com/containernetworking/plugins/plugins/ipam/host-local",
    ),
    program("portmap", "github.com/containernetworking/plugins/plugins/meta/portmap"),
    Program {
        module: "coredns",
        ..program("coredns", ".")
    },
    program("pause", "./cmd/pause"),
];

/// Returns the programs and builds them first when they are not there. `say` gets a line for every step.
pub fn build(say: &mut dyn FnMut(&str)) -> Result<Toolchain, Error> {
    match Toolchain::find() {
        Err(toolchain::Error::NotBuilt(_)) => {}
        found => return Ok(found?),
    }
    let home = toolchain::home(&toolchain::fingerprint()?)?;
    let parent = home.parent().unwrap_or(&home).to_owned();
    fs::create_dir_all(&parent).map_err(at(&parent))?;
    let _lock = lock(&parent, say)?;
    if let Ok(built) = Toolchain::find() {
        return Ok(built);
    }
    remove_unfinished(&parent)?;
    let folder = tempfile::Builder::new()
        .prefix(UNFINISHED)
        .tempdir_in(&parent)
        .map_err(at(&parent))?;
    let bin = folder.path().join("bin");
    fs::create_dir(&bin).map_err(at(&bin))?;
    build_into(&bin, say)?;
    let pause = image::File {
        source: bin.join("pause"),
        path: "/pause".into(),
        mode: 0o755,
    };
    let pause = Image {
        name: PAUSE_IMAGE.into(),
        files: vec![pause],
        command: vec!["/pause".into()],
    };
    image::pack_file(&pause, &bin.join("pause.tar"))?;
    let folder = folder.keep();
    fs::rename(&folder, &home).map_err(at(&home))?;
    Ok(Toolchain::find()?)
}

const UNFINISHED: &str = ".build-";

fn at(path: &Path) -> impl Fn(io::Error) -> Error {
    move |source| Error::File {
        path: path.to_owned(),
        source,
    }
}

fn lock(parent: &Path, say: &mut dyn FnMut(&str)) -> Result<File, Error> {
    let path = parent.join(".lock");
    let file = File::options()
        .create(true)
        .append(true)
        .open(&path)
        .map_err(at(&path))?;
    if file.try_lock().is_err() {
        say("another process is building the Kubernetes programs; waiting for it");
        file.lock().map_err(at(&path))?;
    }
    Ok(file)
}

/// What an interrupted build left. Called with the lock, so no build is under way.
fn remove_unfinished(parent: &Path) -> Result<(), Error> {
    for entry in fs::read_dir(parent).map_err(at(parent))? {
        let path = entry.map_err(at(parent))?.path();
        if path
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with(UNFINISHED))
        {
            fs::remove_dir_all(&path).map_err(at(&path))?;
        }
    }
    Ok(())
}

fn build_into(bin: &Path, say: &mut dyn FnMut(&str)) -> Result<(), Error> {
    let sources = toolchain::sources();
    let flags = linker_flags(&sources.join("go.mod"))?;
    let start = Instant::now();
    for (step, program) in PROGRAMS.iter().enumerate() {
        let target = bin.join(program.name);
        let title = format!("[{}/{}] {}", step + 1, PROGRAMS.len(), program.name);
        say(&title);
        let mut go = Command::new("go");
        go.args(["build", "-v", "-trimpath", "-ldflags", &flags, "-o"])
            .arg(&target)
            .arg(program.package);
        go.env("CGO_ENABLED", "0").current_dir(sources.join(program.module));
        compile(go, &title, start, say)?;
        for alias in program.aliases {
            symlink(program.name, bin.join(alias)).map_err(at(bin))?;
        }
        let size = fs::metadata(&target).map_err(at(&target))?.len() / 1_000_000;
        say(&format!(
            "{title}: {size} MB, {}s since the start",
            start.elapsed().as_secs()
        ));
    }
    Ok(())
}

/// The same for all programs: a linker ignores a variable that the program does not have.
fn linker_flags(go_mod: &Path) -> Result<String, Error> {
    let text = fs::read_to_string(go_mod).map_err(at(go_mod))?;
    let version = |module: &str| {
        required_version(&text, module).ok_or_else(|| Error::Version {
            path: go_mod.to_owned(),
            module: module.to_owned(),
        })
    };
    let kubernetes = version("k8s.io/kubernetes")?;
    let mut numbers = kubernetes.trim_start_matches('v').split('.');
    let stamps = [
        ("k8s.io/component-base/version.gitVersion", kubernetes),
        (
            "k8s.io/component-base/version.gitMajor",
            numbers.next().unwrap_or_default(),
        ),
        (
            "k8s.io/component-base/version.gitMinor",
            numbers.next().unwrap_or_default(),
        ),
        ("helm.sh/helm/v4/internal/version.version", version("helm.sh/helm/v4")?),
        (
            "github.com/containerd/containerd/v2/version.Version",
            version("github.com/containerd/containerd/v2")?,
        ),
    ];
    let stamps = stamps.map(|(variable, value)| format!(" -X {variable}={value}"));
    Ok(format!("-s -w{}", stamps.concat()))
}

/// The version in a `require` line of a `go.mod`.
fn required_version<'a>(go_mod: &'a str, module: &str) -> Option<&'a str> {
    go_mod.lines().find_map(|line| {
        let mut words = line.trim().trim_start_matches("require ").split_whitespace();
        (words.next() == Some(module))
            .then(|| words.next())
            .flatten()
            .filter(|version| version.starts_with('v'))
    })
}

fn compile(mut go: Command, title: &str, start: Instant, say: &mut dyn FnMut(&str)) -> Result<(), Error> {
    let line = command::line_of(&go);
    let failed = |source| Error::Start {
        line: line.clone(),
        source,
    };
    let mut child = go
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let output = child.stderr.take().map(lines_of);
    // With -v, every compiled package and every download is a line.
    let mut printed = Vec::new();
    let mut silent_until = Instant::now() + SIGN_OF_LIFE;
    while let Some(output) = &output {
        match output.recv_timeout(silent_until.saturating_duration_since(Instant::now())) {
            Ok(text) => printed.push(text),
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                silent_until += SIGN_OF_LIFE;
                let at = printed.last().map_or("", String::as_str);
                say(&format!(
                    "{title}: {} packages, now {at}, {}s since the start",
                    printed.len(),
                    start.elapsed().as_secs()
                ));
            }
        }
    }
    if child.wait().map_err(failed)?.success() {
        return Ok(());
    }
    let folder = go.get_current_dir().unwrap_or(Path::new(".")).to_owned();
    let shown = printed[printed.len().saturating_sub(SHOWN)..].join("\n");
    Err(Error::Failed {
        line,
        folder,
        output: shown,
    })
}

fn lines_of(stream: impl io::Read + Send + 'static) -> Receiver<String> {
    let (send, receive) = sync_channel(64);
    thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            if send.send(line).is_err() {
                break;
            }
        }
    });
    receive
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_come_from_require_lines() {
        let text = "module m\nrequire one.dev/a v1.2.3\nrequire (\n\tone.dev/b v0.1.0 // indirect\n)\nreplace one.dev/c => one.dev/c v9.0.0\n";
        assert_eq!(required_version(text, "one.dev/a"), Some("v1.2.3"));
        assert_eq!(required_version(text, "one.dev/b"), Some("v0.1.0"));
        assert_eq!(required_version(text, "one.dev/c"), None);
        assert_eq!(required_version(text, "one.dev"), None);
    }

    #[test]
    fn stamps_fit_the_module_file() {
        let flags = linker_flags(&toolchain::sources().join("go.mod")).unwrap();
        assert!(
            flags.starts_with("-s -w -X k8s.io/component-base/version.gitVersion=v1."),
            "{flags}"
        );
        assert!(
            flags.contains("gitMajor=1 ") && flags.contains("helm/v4/internal/version.version=v4."),
            "{flags}"
        );
    }
}
