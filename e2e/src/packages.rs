//! The Debian packages that a node needs besides our own programs.

use std::process::Command;

use crate::command;

/// What a node calls, and the package it comes in.
const NEEDED: [(&str, &str); 8] = [
    ("runc", "runc"),
    ("iptables", "iptables"),
    ("conntrack", "conntrack"),
    ("ip", "iproute2"),
    ("mount", "mount"),
    ("unshare", "util-linux"),
    ("nsenter", "util-linux"),
    ("setsid", "util-linux"),
];

/// Why the packages are not there.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("Debian packages are missing: run `apt-get install {}` as root, or run this as root and it does so itself", .0.join(" "))]
    Missing(Vec<&'static str>),
    #[error("the programs of the packages {} are missing, and there is no apt-get here to install them with", .0.join(", "))]
    NoApt(Vec<&'static str>),
    #[error("`{line}` failed, which was to install what is missing: {message}")]
    Install { line: String, message: String },
}

/// Checks that everything is there. As root, installs what is not; `say` gets a line about that.
pub(crate) fn ensure(root: bool, say: &mut dyn FnMut(&str)) -> Result<(), Error> {
    let packages = missing(is_installed);
    if packages.is_empty() {
        return Ok(());
    }
    if !is_installed("apt-get") {
        return Err(Error::NoApt(packages));
    }
    if !root {
        return Err(Error::Missing(packages));
    }
    say(&format!("installing Debian packages: {}", packages.join(" ")));
    apt_get(&["update", "-q"])?;
    let install = ["install", "-q", "-y", "--no-install-recommends"];
    apt_get(&[&install[..], &packages[..]].concat())?;
    match missing(is_installed) {
        still if still.is_empty() => Ok(()),
        still => Err(Error::Missing(still)),
    }
}

fn missing(installed: impl Fn(&str) -> bool) -> Vec<&'static str> {
    let mut packages: Vec<_> = NEEDED
        .iter()
        .filter(|(program, _)| !installed(program))
        .map(|(_, package)| *package)
        .collect();
    packages.dedup();
    packages
}

fn is_installed(program: &str) -> bool {
    command::search_path()
        .iter()
        .any(|folder| folder.join(program).is_file())
}

fn apt_get(args: &[&str]) -> Result<(), Error> {
    let mut apt = Command::new("apt-get");
    apt.args(args).env("DEBIAN_FRONTEND", "noninteractive");
    let line = command::line_of(&apt);
    let output = apt.output().map_err(|error| Error::Install {
        line: line.clone(),
        message: error.to_string(),
    })?;
    if output.status.success() {
        return Ok(());
    }
    Err(Error::Install {
        line,
        message: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_missing_package_is_named_once() {
        assert_eq!(missing(|_| true), Vec::<&str>::new());
        assert_eq!(missing(|program| program != "runc"), ["runc"]);
        assert_eq!(
            missing(|program| !["ip", "nsenter", "unshare"].contains(&program)),
            ["iproute2", "util-linux"]
        );
    }

    #[test]
    fn the_sentence_names_what_to_do() {
        let text = Error::Missing(vec!["runc", "conntrack"]).to_string();
        assert!(text.contains("`apt-get install runc conntrack` as root"), "{text}");
    }
}
