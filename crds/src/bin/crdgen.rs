//! Writes the CustomResourceDefinitions into the chart.

use std::{fs, path::PathBuf};

use anyhow::Context;

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
    Ok(())
}
