//! What a recording says about the programs, as flags: how often each function runs, for the compiler, and which ones run at
//! all, for the linker, which puts them side by side, so that the others' pages are never read into memory.

use std::{
    fs,
    io::{Read, Write},
    path::{Path, PathBuf},
};

use flate2::read::GzDecoder;
use outrigger_testkit::toolchain;

use super::{Error, workspace};
use crate::image::sha256;

/// Where it was recorded; elsewhere functions have other names, and the linker may be one that knows no order.
pub(super) const HOST: &str = "x86_64-unknown-linux-gnu";
/// How often functions ran, as LLVM writes it.
pub(super) const COUNTS: &str = "counts.profdata";
/// Symbols that ran, one in a line.
pub(super) const ORDER: &str = "order.txt";
/// What the names of functions depend on, as it was then: see [`names`].
pub(super) const NAMES: &str = "names";

/// Where recordings are, each file packed with gzip.
pub(super) fn folder() -> PathBuf {
    workspace().join("e2e/recording")
}

/// Flags for this host; none when there is no recording for it.
///
/// # Errors
/// A recording that cannot be read or unpacked.
pub(super) fn flags(host: &str) -> Result<Vec<String>, Error> {
    if host != HOST {
        return Ok(Vec::new());
    }
    let mut flags = counted(&unpacked(COUNTS)?);
    // What is not in this build any more is passed over.
    flags.push("-Clink-arg=-Wl,--no-warn-symbol-ordering".to_owned());
    let order = unpacked(ORDER)?;
    flags.push(format!("-Clink-arg=-Wl,--symbol-ordering-file={}", order.display()));
    Ok(flags)
}

/// Flags for the counts alone. Functions that have changed since are compiled without; that is not worth a warning each.
pub(super) fn counted(counts: &Path) -> Vec<String> {
    vec![
        format!("-Cprofile-use={}", counts.display()),
        "-Cllvm-args=-no-pgo-warn-mismatch".to_owned(),
    ]
}

/// What all names of functions depend on: the compiler, the version of the packages and how they are optimised. With another one
/// nothing of a recording applies, and no tool says so.
///
/// # Errors
/// Files of the workspace that cannot be read.
pub(super) fn names() -> Result<String, Error> {
    let read = |name: &str| {
        let path = workspace().join(name);
        fs::read_to_string(&path).map_err(|error| Error::Read(path, error))
    };
    let toolchain = read("rust-toolchain.toml")?;
    let manifest = read("Cargo.toml")?;
    let mut lines: Vec<_> = toolchain.lines().filter(|line| line.starts_with("channel")).collect();
    let mut in_profile = false;
    lines.extend(manifest.lines().filter(|line| {
        if line.starts_with('[') {
            in_profile = line.starts_with("[profile.release");
        }
        // How it is stripped has no part in them.
        (in_profile && !line.is_empty() && !line.starts_with('#') && !line.starts_with("strip"))
            || line.starts_with("version =")
    }));
    Ok(lines.join("\n") + "\n")
}

/// Unpacks into the cache, named by content: flags that name the same file in all checkouts share what is compiled.
fn unpacked(name: &str) -> Result<PathBuf, Error> {
    let packed = folder().join(format!("{name}.gz"));
    let bytes = fs::read(&packed).map_err(|error| Error::Read(packed.clone(), error))?;
    let cache = toolchain::cache()?.join("recording");
    let path = cache.join(format!("{}-{name}", &sha256(&bytes)[..16]));
    if path.is_file() {
        return Ok(path);
    }
    let mut content = Vec::new();
    GzDecoder::new(&*bytes)
        .read_to_end(&mut content)
        .map_err(|error| Error::Read(packed, error))?;
    // Others may do the same at this moment.
    fs::create_dir_all(&cache)
        .and_then(|()| tempfile::NamedTempFile::new_in(&cache))
        .and_then(|mut new| {
            new.write_all(&content)?;
            Ok(new.persist(&path)?)
        })
        .map_err(|error| Error::Write(path.clone(), error))?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_recording_is_of_functions_with_these_names_and_of_every_program() {
        let recorded = fs::read_to_string(folder().join(NAMES)).unwrap();
        let now = names().unwrap();
        assert_eq!(recorded, now, "`make recording` records anew");
        assert!(
            ["channel = ", "version = ", "opt-level = "]
                .iter()
                .all(|part| now.contains(part)),
            "{now}"
        );
        let order = fs::read_to_string(unpacked(ORDER).unwrap()).unwrap();
        for program in ["operator", "injector", "sentry", "sidecar"] {
            let own = order.matches(&format!("outrigger_{program}")).count();
            assert!(own > 50, "{own} functions of {program}");
        }
        assert!(fs::metadata(unpacked(COUNTS).unwrap()).unwrap().len() > 1_000_000);
    }
}
