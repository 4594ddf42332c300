//! The project's own images: static binaries, built by cargo, each alone in an image.

mod recorded;
pub mod recording;

use std::{
    env, fs, io,
    path::{Path, PathBuf},
};

use outrigger_testkit::toolchain;
use tokio::process::Command;

use crate::{
    command,
    image::{self, File, Image},
};

/// Registry and folder of the images, as in the chart's values.
pub const REGISTRY: &str = "localhost/outrigger";
/// Tag of the images, as in the chart's values.
pub const TAG: &str = env!("CARGO_PKG_VERSION");

/// Between flags, as cargo has it.
const SEPARATOR: &str = "\u{1f}";

/// Binaries that a release is made of, and the packages they come from.
const PROGRAMS: [(&str, &str); 4] = [
    ("operator", "outrigger-operator"),
    ("injector", "outrigger-injector"),
    ("sentry", "outrigger-sentry"),
    ("daprd", "outrigger-sidecar"),
];
/// The one that only tests use.
const SAMPLE: (&str, &str) = ("sample-app", "outrigger-e2e");

/// Why images could not be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Command(#[from] command::Error),
    #[error(transparent)]
    Image(#[from] image::Error),
    #[error("cargo built no {0}")]
    Missing(PathBuf, #[source] io::Error),
    #[error("could not write {0}")]
    Write(PathBuf, #[source] io::Error),
    #[error("`rustc -vV` does not name the host")]
    Host,
    #[error("could not read {0}")]
    Read(PathBuf, #[source] io::Error),
    #[error(transparent)]
    Cache(#[from] toolchain::Error),
}

/// An image and where its archive is.
#[derive(Debug, Clone)]
pub struct Archive {
    /// Full name with tag.
    pub image: String,
    pub path: PathBuf,
    /// Bytes of the binary in it.
    pub binary_size: u64,
    /// Whether it had to be packed now.
    pub fresh: bool,
}

/// Builds the binaries and packs the images that changed. What is current stays as it is.
///
/// # Errors
/// cargo's failure, with its output, a recording that cannot be read, or an archive that cannot be written.
pub async fn build() -> Result<Vec<Archive>, Error> {
    let built = current().await?;
    let folder = target_folder().join("images");
    fs::create_dir_all(&folder).map_err(|error| Error::Write(folder.clone(), error))?;
    binaries()
        .map(|(name, _)| pack(name, &built.join(name), &folder))
        .collect()
}

/// Builds the binaries and returns the path of one.
///
/// # Errors
/// cargo's failure, with its output, or a recording that cannot be read.
pub async fn binary(name: &str) -> Result<PathBuf, Error> {
    Ok(current().await?.join(name))
}

/// Builds the binaries with all that is known of how they run, and returns their folder.
async fn current() -> Result<PathBuf, Error> {
    let host = host().await?;
    compile(&host, &target_folder(), &recorded::flags(&host)?).await
}

/// Builds the binaries into a target folder and returns where they are. A static binary needs nothing else in its image.
async fn compile(host: &str, target: &Path, flags: &[String]) -> Result<PathBuf, Error> {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // The target is named, so that the flags do not reach build scripts.
    cargo
        .current_dir(workspace())
        .args(["build", "--locked", "--release", "--quiet", "--target", host])
        .env("CARGO_TARGET_DIR", target);
    for (binary, package) in binaries() {
        cargo.args(["--package", package, "--bin", binary]);
    }
    // Relocations in the short form: a fifteenth of each binary is nothing else otherwise. glibc knows it since 2.36.
    let always = ["-Ctarget-feature=+crt-static", "-Clink-arg=-Wl,-z,pack-relative-relocs"];
    let all: Vec<_> = always.into_iter().chain(flags.iter().map(String::as_str)).collect();
    cargo.env("CARGO_ENCODED_RUSTFLAGS", all.join(SEPARATOR));
    command::run(cargo).await?;
    Ok(target.join(host).join("release"))
}

/// All, and so the images.
fn binaries() -> impl Iterator<Item = (&'static str, &'static str)> {
    PROGRAMS.into_iter().chain([SAMPLE])
}

fn pack(name: &str, binary: &Path, folder: &Path) -> Result<Archive, Error> {
    let content = fs::read(binary).map_err(|error| Error::Missing(binary.to_owned(), error))?;
    let digest = image::sha256(&content);
    let path = folder.join(format!("{name}.tar"));
    let mark = folder.join(format!("{name}.sha256"));
    let image = format!("{REGISTRY}/{name}:{TAG}");
    let current = format!("{digest} {image}\n");
    let fresh = !path.is_file() || fs::read_to_string(&mark).ok().as_ref() != Some(&current);
    if fresh {
        let program = format!("/{name}");
        let files = vec![File {
            source: binary.to_owned(),
            path: program.clone(),
            mode: 0o755,
        }];
        image::pack_file(
            &Image {
                name: image.clone(),
                files,
                command: vec![program],
            },
            &path,
        )?;
        fs::write(&mark, &current).map_err(|error| Error::Write(mark, error))?;
    }
    Ok(Archive {
        image,
        path,
        binary_size: content.len() as u64,
        fresh,
    })
}

async fn host() -> Result<String, Error> {
    let mut rustc = Command::new("rustc");
    rustc.arg("-vV").current_dir(workspace());
    let output = command::run(rustc).await?;
    output
        .lines()
        .find_map(|line| line.strip_prefix("host: "))
        .map(str::to_owned)
        .ok_or(Error::Host)
}

/// The root of the checkout.
pub fn workspace() -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    folder.parent().unwrap_or(folder).to_owned()
}

fn target_folder() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from)
}
