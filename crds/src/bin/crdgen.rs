//! Writes the CustomResourceDefinitions into the chart, and the reference of conditions into the docs.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context;
use outrigger_crds::status::reference;

fn main() -> anyhow::Result<()> {
    let folder = match std::env::args_os().nth(1) {
        Some(folder) => PathBuf::from(folder),
        None => PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/dapr/crds")),
    };
    fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    for (file, yaml) in outrigger_crds::definition::files()? {
        let path = folder.join(file);
        fs::write(&path, yaml).with_context(|| format!("write {}", path.display()))?;
        println!("{}", path.display());
    }
    let page = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs")).join(reference::PATH);
    fs::write(&page, reference::page()).with_context(|| format!("write {}", page.display()))?;
    println!("{}", page.display());
    Ok(())
}
