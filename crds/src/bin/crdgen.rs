//! Writes what is generated: the CustomResourceDefinitions in the charts, and the reference pages.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context;
use outrigger_crds::{definition, reference};

fn main() -> anyhow::Result<()> {
    let charts = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../charts"));
    write(&charts.join("dapr/crds"), definition::files()?)?;
    write(&charts.join("dapr-crds/templates"), definition::templates()?)?;
    write(&reference::folder(), reference::pages())
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
