//! Writes what is generated from the types: the CustomResourceDefinitions of the chart, and reference pages.

use std::{fs, path::Path};

use anyhow::Context;
use outrigger_crds::{definition, status::reference};

fn main() -> anyhow::Result<()> {
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    let crds = root.join("charts/dapr/crds");
    for (file, yaml) in definition::files()? {
        write(&crds.join(file), &yaml)?;
    }
    write(&root.join("docs").join(reference::PATH), &reference::page())
}

fn write(path: &Path, content: &str) -> anyhow::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    }
    fs::write(path, content).with_context(|| format!("write {}", path.display()))?;
    println!("{}", path.display());
    Ok(())
}
