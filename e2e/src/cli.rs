//! The command line of the program `cluster`.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::{Parser, Subcommand};
use outrigger_testkit::toolchain::Toolchain;

use crate::cluster::{Cluster, DEFAULT_NAME, Event, Folder, Options, Status, Stopped};
use crate::image::{self, Image};
use crate::{command, node, release, toolchain};

/// A real Kubernetes on this machine: no Docker, no image registry.
#[derive(Debug, Parser)]
#[command(name = "cluster", version)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The Kubernetes programs
    #[command(subcommand)]
    Kubernetes(Kubernetes),
    /// Start a cluster, or show the one that runs
    Up(Up),
    /// Stop a cluster and remove everything of it
    Down(Down),
    /// Say what a cluster does
    Status(Name),
    /// Images without Docker
    #[command(subcommand)]
    Images(Images),
    /// Run a command in the node's network, processes and mounts
    Exec(Exec),
    /// The node's first process; `up` starts it
    #[command(hide = true)]
    Node(node::Args),
}

#[derive(Debug, Subcommand)]
enum Kubernetes {
    /// Build them from Go modules, unless they are there
    Build,
    /// Print the folder that they are in
    Path,
}

#[derive(clap::Args, Debug)]
struct Name {
    /// The cluster's name
    #[arg(long, default_value = DEFAULT_NAME)]
    name: String,
}

#[derive(clap::Args, Debug)]
struct Up {
    #[command(flatten)]
    name: Name,
    /// The API server's port on 127.0.0.1 [default: 6443, or a free one when that is taken]
    #[arg(long)]
    port: Option<u16>,
    /// Log every request to the API server in logs/audit.log
    #[arg(long)]
    audit: bool,
    /// Seconds that the start may take
    #[arg(long, default_value_t = 180)]
    deadline: u64,
}

#[derive(clap::Args, Debug)]
struct Down {
    #[command(flatten)]
    name: Name,
    /// Leave the logs in the cluster's folder
    #[arg(long)]
    keep_logs: bool,
}

#[derive(Debug, Subcommand)]
enum Images {
    /// Load archives into the node
    Import {
        #[command(flatten)]
        name: Name,
        #[arg(required = true)]
        archives: Vec<PathBuf>,
    },
    /// Build the project's own binaries and pack each into an image
    Build,
    /// Pack files into an archive
    Pack(Pack),
}

#[derive(clap::Args, Debug)]
struct Pack {
    /// Name and tag of the image
    #[arg(long)]
    name: String,
    /// The archive to write
    #[arg(long)]
    output: PathBuf,
    /// A file: SOURCE=PATH, mode 755, or SOURCE=PATH=MODE
    #[arg(long = "file", value_parser = parse_file, required = true)]
    files: Vec<image::File>,
    /// The program that the image runs, with its arguments
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

#[derive(clap::Args, Debug)]
struct Exec {
    #[command(flatten)]
    name: Name,
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

impl Cli {
    /// Does what the command line says.
    pub fn run(self) -> anyhow::Result<()> {
        match self.command {
            Command::Kubernetes(command) => kubernetes(&command),
            Command::Up(args) => wait(up(args)),
            Command::Down(args) => wait(down(args)),
            Command::Status(args) => status(&args.name),
            Command::Images(Images::Import { name, archives }) => wait(import(name.name, archives)),
            Command::Images(Images::Build) => wait(build_images()),
            Command::Images(Images::Pack(args)) => pack(args),
            Command::Exec(args) => exec(&args),
            Command::Node(args) => node::run(args),
        }
    }
}

fn wait(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start a runtime")?
        .block_on(work)
}

fn kubernetes(command: &Kubernetes) -> anyhow::Result<()> {
    let toolchain = match command {
        Kubernetes::Build => toolchain::build(&mut |line| say(line))?,
        Kubernetes::Path => Toolchain::find()?,
    };
    println!("{}", toolchain.bin().display());
    Ok(())
}

async fn up(args: Up) -> anyhow::Result<()> {
    let deadline = Duration::from_secs(args.deadline);
    let options = Options {
        name: args.name.name,
        port: args.port,
        audit: args.audit,
        deadline,
    };
    let cluster = Cluster::up(&options, &mut |event| say(&line_of(event))).await?;
    if !cluster.is_new() {
        say(&format!("cluster {} already runs", options.name));
    }
    let kubectl_is_found = command::search_path()
        .iter()
        .any(|folder| folder.join("kubectl").is_file());
    if !kubectl_is_found {
        println!("export PATH=\"$PATH:{}\"", cluster.programs().display());
    }
    println!("export KUBECONFIG={}", cluster.folder().kubeconfig().display());
    Ok(())
}

fn line_of(event: &Event) -> String {
    match event {
        Event::Step { after, text } => format!("{:5.1}s  {text}", after.as_secs_f64()),
        Event::Ready { after } => format!("{:5.1}s  cluster ready", after.as_secs_f64()),
        Event::Failed { text, .. } => format!("failed: {text}"),
    }
}

async fn down(args: Down) -> anyhow::Result<()> {
    let name = args.name.name;
    say(&match Cluster::down(&name, args.keep_logs).await? {
        Stopped::Running => format!("cluster {name} is stopped and removed"),
        Stopped::LeftOver => format!("cluster {name} did not run; its files are removed"),
        Stopped::Nothing => format!("cluster {name} does not run"),
    });
    Ok(())
}

fn status(name: &str) -> anyhow::Result<()> {
    match Cluster::status(name)? {
        Status::Absent => println!("cluster {name} does not run"),
        Status::Starting { pid } => println!("cluster {name} is being started by process {pid}"),
        Status::Running { pid, port } => {
            println!("cluster {name} runs as process {pid}, API server https://127.0.0.1:{port}");
            println!("export KUBECONFIG={}", Folder::of(name)?.kubeconfig().display());
        }
        Status::Ended { reason, log } => {
            println!("cluster {name} has ended: {reason}");
            if let Some(log) = log {
                println!("log: {}", log.display());
            }
        }
    }
    Ok(())
}

async fn import(name: String, archives: Vec<PathBuf>) -> anyhow::Result<()> {
    let cluster = Cluster::connect(&name)?;
    for archive in archives {
        cluster.import_image(&archive).await?;
        println!("{} is in cluster {name}", archive.display());
    }
    Ok(())
}

async fn build_images() -> anyhow::Result<()> {
    for archive in release::build().await? {
        let state = if archive.fresh { "packed" } else { "unchanged" };
        let size = archive.binary_size as f64 / 1e6;
        println!(
            "{:<44} {size:>6.1} MB  {state}  {}",
            archive.image,
            archive.path.display()
        );
    }
    Ok(())
}

fn pack(args: Pack) -> anyhow::Result<()> {
    let image = Image {
        name: args.name,
        files: args.files,
        command: args.command,
    };
    image::pack_file(&image, &args.output)?;
    let size = std::fs::metadata(&args.output)
        .context("read the archive's size")?
        .len();
    println!(
        "{}: {} ({:.1} MB)",
        image.name,
        args.output.display(),
        size as f64 / 1e6
    );
    Ok(())
}

fn parse_file(text: &str) -> Result<image::File, String> {
    let mut parts = text.split('=');
    let (Some(source), Some(path), mode, None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
        return Err(format!("{text:?}: expected SOURCE=PATH or SOURCE=PATH=MODE"));
    };
    let mode = mode.unwrap_or("755");
    let mode = u32::from_str_radix(mode, 8).map_err(|_| format!("mode {mode:?}: expected octal digits, as in 755"))?;
    Ok(image::File {
        source: source.into(),
        path: path.into(),
        mode,
    })
}

/// Becomes the command, so that its input, output, signals and status are the caller's.
fn exec(args: &Exec) -> anyhow::Result<()> {
    let cluster = Cluster::connect(&args.name.name)?;
    let mut words = args.command.iter();
    let program = words.next().context("no command given")?;
    let mut command = cluster.inside(program).into_std();
    command.args(words);
    let error = command.exec();
    Err(error).with_context(|| format!("run `{}`", command::line_of(&command)))
}

/// Progress is not output: `eval "$(cluster up)"` takes the latter.
fn say(line: &str) {
    let mut stream = std::io::stderr().lock();
    // Nobody listens any more; the work goes on.
    let _ = writeln!(stream, "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn files_have_a_source_a_path_and_perhaps_a_mode() {
        let file = parse_file("target/app=/app").unwrap();
        assert_eq!(
            (file.source, file.path.as_str(), file.mode),
            ("target/app".into(), "/app", 0o755)
        );
        assert_eq!(parse_file("a=/a=644").unwrap().mode, 0o644);
        for wrong in ["a", "a=/a=rw", "a=/a=644=b"] {
            assert!(parse_file(wrong).is_err(), "{wrong}");
        }
    }
}
