//! Writes the CustomResourceDefinitions into the charts, and the reference of conditions into the docs.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context;
use outrigger_crds::{definition, status::reference};

fn main() -> anyhow::Result<()> {
    let root = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    let charts = root.join("charts");
    write(&charts.join("dapr/crds"), definition::files()?)?;
    write(&charts.join("dapr-crds/templates"), definition::templates()?)?;
    write(&root.join("docs"), vec![(reference::PATH, reference::page())])
}

fn write(folder: &Path, files: Vec<(&str, String)>) -> anyhow::Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    for (file, content) in files {
        let path = folder.join(file);
        fs::write(&path, content).with_context(|| format!("write {}", path.display()))?;
        println!("{}", path.display());
    }
    Ok(())
}
