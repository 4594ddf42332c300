//! What a recording says about the programs, as flags: how often each function runs, for the compiler, and which ones run at
//! all, for the linker, which puts them side by side, so that the others' pages are never read into memory.

use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
};

use flate2::read::GzDecoder;
use outrigger_testkit::toolchain;

use super::{Error, workspace};
use crate::image::hex;

/// Where it was recorded; elsewhere functions have other names, and the linker may be one that knows no order.
pub(super) const HOST: &str = "x86_64-unknown-linux-gnu";
/// How often functions ran, as LLVM writes it.
pub(super) const COUNTS: &str = "counts.profdata";
/// Symbols that ran, one in a line.
pub(super) const ORDER: &str = "order.txt";
/// The compiler it was recorded with, as in `rust-toolchain.toml`.
pub(super) const TOOLCHAIN: &str = "toolchain";

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

/// Unpacks into the cache, named by content: flags that name the same file in all checkouts share what is compiled.
fn unpacked(name: &str) -> Result<PathBuf, Error> {
    let packed = folder().join(format!("{name}.gz"));
    let bytes = fs::read(&packed).map_err(|error| Error::Read(packed.clone(), error))?;
    let cache = toolchain::cache()?.join("recording");
    let path = cache.join(format!("{}-{name}", &hex(&bytes)[..16]));
    if path.is_file() {
        return Ok(path);
    }
    let mut content = Vec::new();
    GzDecoder::new(&*bytes)
        .read_to_end(&mut content)
        .map_err(|error| Error::Read(packed, error))?;
    // Another process may do the same at this moment.
    let new = cache.join(format!("{}.{name}", std::process::id()));
    fs::create_dir_all(&cache)
        .and_then(|()| fs::write(&new, content))
        .and_then(|()| fs::rename(&new, &path))
        .map_err(|error| Error::Write(path.clone(), error))?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_recording_is_of_this_compiler_and_of_every_program() {
        let channel = fs::read_to_string(workspace().join("rust-toolchain.toml")).unwrap();
        let recorded = fs::read_to_string(folder().join(TOOLCHAIN)).unwrap();
        assert!(
            channel.contains(&format!("channel = \"{}\"", recorded.trim())),
            "recorded with {recorded}: no symbol has its name any more. `make recording` records anew"
        );
        let order = fs::read_to_string(unpacked(ORDER).unwrap()).unwrap();
        for program in ["operator", "injector", "sentry", "sidecar"] {
            let own = order.matches(&format!("outrigger_{program}")).count();
            assert!(own > 50, "{own} functions of {program}");
        }
        assert!(fs::metadata(unpacked(COUNTS).unwrap()).unwrap().len() > 1_000_000);
    }
}
