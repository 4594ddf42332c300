//! Resources from folders, and Configurations from files: how a sidecar runs without Kubernetes.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use serde_json::Value;

use super::{
    API_VERSION, DecodeError, Head,
    authorise::{DenyList, Refusal, authorise},
    component::Component,
    configuration::Configuration,
    decode,
};

/// Why folders or files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read {path}: {error}")]
    Read { path: PathBuf, error: io::Error },
    #[error("{}", .0.join("\n"))]
    Duplicates(Vec<String>),
    #[error("{path} is not YAML: {error}")]
    Yaml {
        path: PathBuf,
        error: Box<serde_saphyr::Error>,
    },
    #[error("{path} is not a Configuration: {error}")]
    Configuration { path: PathBuf, error: DecodeError },
}

/// What folders came to.
#[derive(Debug)]
pub struct Read {
    pub components: Vec<Component>,
    /// How many documents could not be read; they may be any of the components known before.
    pub unreadable: usize,
}

/// Reads the Components of all folders that are for this application. Documents that cannot be read are logged and left out.
///
/// # Errors
/// A folder that cannot be read, or two components with one name.
pub fn components(folders: &[PathBuf], namespace: &str, app_id: &str) -> Result<Read, Error> {
    let mut unreadable = 0;
    let mut accepted: BTreeMap<String, Component> = BTreeMap::new();
    let mut order = Vec::new();
    let mut duplicates = Vec::new();
    for path in folders
        .iter()
        .map(|folder| files(folder))
        .collect::<Result<Vec<_>, _>>()?
        .into_iter()
        .flatten()
    {
        let text = fs::read_to_string(&path).map_err(|error| Error::Read {
            path: path.clone(),
            error,
        })?;
        for (number, document) in documents(&text).enumerate() {
            let component = match component(document) {
                Ok(Some(component)) => component,
                Ok(None) => continue,
                Err(error) => {
                    tracing::warn!(path = %path.display(), document = number + 1, error, "a resource cannot be read");
                    unreadable += 1;
                    continue;
                }
            };
            // The Configuration's deny list is the loader's business: it changes while the sidecar runs.
            let refusal = authorise(&component, namespace, app_id, &DenyList::default()).err();
            if !matches!(refusal, Some(Refusal::Namespace(_)))
                && let Some(existing) = accepted.get(&component.name)
            {
                let (new, old) = (component.log_name(), existing.log_name());
                duplicates.push(format!(
                    "duplicate definition of Component name {new} with existing {old}"
                ));
                continue;
            }
            if let Some(refusal) = refusal {
                tracing::debug!(component = component.name, %refusal, "a component is not for this application");
                continue;
            }
            order.push(component.name.clone());
            accepted.insert(component.name.clone(), component);
        }
    }
    if !duplicates.is_empty() {
        return Err(Error::Duplicates(duplicates));
    }
    Ok(Read {
        components: order.iter().filter_map(|name| accepted.remove(name)).collect(),
        unreadable,
    })
}

/// Merges Configuration files in order, a later field over an earlier one. `env` expands `$NAME` and `${NAME}`.
///
/// # Errors
/// The first file that is missing or cannot be read.
pub fn configuration(paths: &[String], env: impl Fn(&str) -> Option<String>) -> Result<Configuration, Error> {
    let mut merged = Value::Object(serde_json::Map::new());
    for path in paths.iter().map(PathBuf::from) {
        let text = fs::read_to_string(&path).map_err(|error| Error::Read {
            path: path.clone(),
            error,
        })?;
        let value = yaml(&expand(&text, &env)).map_err(|error| Error::Yaml {
            path: path.clone(),
            error,
        })?;
        merge(&mut merged, value);
        // Checked for each file, so that the message names the right one.
        Configuration::from_json(merged.to_string().as_bytes()).map_err(|error| Error::Configuration {
            path: path.clone(),
            error,
        })?;
    }
    let path = paths.last().map(PathBuf::from).unwrap_or_default();
    Configuration::from_json(merged.to_string().as_bytes()).map_err(|error| Error::Configuration { path, error })
}

/// YAML files of a folder by name, not of its folders.
fn files(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let read = |error| Error::Read {
        path: folder.to_owned(),
        error,
    };
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(read)? {
        let path = entry.map_err(read)?.path();
        if path.is_dir() {
            continue;
        }
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("yaml" | "yml") => files.push(path),
            _ => tracing::warn!(path = %path.display(), "a file in a resources folder is not YAML and is ignored"),
        }
    }
    files.sort();
    Ok(files)
}

/// Documents of a stream: separated by lines that begin with `---`.
fn documents(text: &str) -> impl Iterator<Item = &str> {
    let mut starts = vec![0];
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        if line.starts_with("---") {
            starts.push(at);
        }
        at += line.len();
    }
    starts.push(text.len());
    starts
        .windows(2)
        .map(|pair| &text[pair[0]..pair[1]])
        .map(|document| match document.strip_prefix("---") {
            Some(rest) => rest.split_once('\n').map_or("", |(_, body)| body),
            None => document,
        })
        .filter(|document| {
            document
                .lines()
                .any(|line| !(line.trim().is_empty() || line.trim_start().starts_with('#')))
        })
        .collect::<Vec<_>>()
        .into_iter()
}

/// `None` for a document of a kind that this release does not load, which is logged by name.
fn component(document: &str) -> Result<Option<Component>, String> {
    let json = yaml(document).map_err(|error| error.to_string())?.to_string();
    let head: Head = decode(json.as_bytes()).map_err(|error| error.to_string())?;
    let name = &head.metadata.name;
    if head.api_version != API_VERSION || head.kind != "Component" {
        tracing::warn!(
            api_version = head.api_version,
            kind = head.kind,
            name,
            "a resource of a kind that this release does not load is ignored (it loads dapr.io/v1alpha1 Component)"
        );
        return Ok(None);
    }
    if name.is_empty() || name == "." || name == ".." || name.contains(['/', '%']) {
        return Err(format!("metadata.name: {name:?} is not a legal name"));
    }
    Component::from_json(json.as_bytes())
        .map(Some)
        .map_err(|error| error.to_string())
}

/// Only `true` and `false` are booleans: `on`, `no` and `y` are words that people use.
fn yaml(text: &str) -> Result<Value, Box<serde_saphyr::Error>> {
    serde_saphyr::from_str_with_options(text, serde_saphyr::options! { strict_booleans: true }).map_err(Box::new)
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

/// Go's `os.ExpandEnv`: `$NAME` and `${NAME}`, unset is empty, and no escape (so a literal `$` is lost, as upstream loses it).
fn expand(text: &str, env: &impl Fn(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let name = if let Some(braced) = rest.strip_prefix('{') {
            let Some(end) = braced.find('}') else { continue };
            rest = &braced[end + 1..];
            &braced[..end]
        } else {
            let end = rest
                .find(|c: char| !(c == '_' || c.is_ascii_alphanumeric()))
                .unwrap_or(rest.len());
            let (name, after) = rest.split_at(end);
            rest = after;
            name
        };
        out.push_str(&env(name).unwrap_or_default());
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(folder.path().join(name), text).unwrap();
        }
        folder
    }

    fn store(name: &str) -> String {
        format!(
            "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata:\n  name: {name}\nspec:\n  type: state.in-memory\n  \
             version: v1\n  metadata:\n  - name: n\n    value: 5\n"
        )
    }

    #[test]
    fn reads_what_is_a_component_and_goes_on_after_a_bad_document() {
        let two = format!(
            "# first\n---\n{}---\nkind: [broken\n---\nkind: Subscription\n--- # last\n{}",
            store("b"),
            store("c")
        );
        let folder = folder(&[("2.yaml", &two), ("1.yml", &store("a")), ("notes.txt", "x")]);
        let read = components(&[folder.path().to_owned()], "shop", "cart").unwrap();
        assert_eq!(read.unreadable, 1);
        let names: Vec<_> = read
            .components
            .iter()
            .map(|component| component.name.as_str())
            .collect();
        assert_eq!(names, ["a", "b", "c"]);
        assert_eq!(read.components[0].spec.metadata[0].value.as_ref().unwrap().text(), "5");
    }

    #[test]
    fn other_applications_and_namespaces_are_left_out() {
        let scoped = format!("{}scopes: [till]\n", store("a"));
        let foreign = store("b").replace("  name: b", "  name: b\n  namespace: other");
        let folder = folder(&[
            ("1.yaml", &scoped),
            ("2.yaml", &foreign),
            ("3.yaml", &store("a")),
            ("4.yaml", &store("b")),
            ("5.yaml", &foreign),
        ]);
        let read = components(&[folder.path().to_owned()], "shop", "cart").unwrap();
        let names: Vec<_> = read.components.iter().map(|component| &component.name[..]).collect();
        assert_eq!(
            names,
            ["a", "b"],
            "what is not for us reserves no name, and a name of another namespace is another name"
        );
    }

    #[test]
    fn a_name_twice_or_a_missing_folder_is_an_error() {
        let folder = folder(&[("1.yaml", &store("a")), ("2.yaml", &store("a"))]);
        assert_eq!(
            components(&[folder.path().to_owned()], "", "cart")
                .unwrap_err()
                .to_string(),
            "duplicate definition of Component name a (state.in-memory/v1) with existing a (state.in-memory/v1)"
        );
        let missing = folder.path().join("missing");
        assert!(
            components(&[missing], "", "cart")
                .unwrap_err()
                .to_string()
                .contains("missing: No such file")
        );
    }

    #[test]
    fn configurations_are_merged_and_expanded() {
        let one =
            "kind: Configuration\nspec:\n  metric:\n    enabled: true\n  components:\n    deny: [\"state.${KIND}\"]\n";
        let folder = folder(&[
            ("1.yaml", one),
            ("2.yaml", "spec:\n  metric:\n    enabled: false\n"),
            ("3.yaml", "spec: 1"),
        ]);
        let path = |name: &str| folder.path().join(name).display().to_string();
        let env = |name: &str| (name == "KIND").then(|| "redis".to_owned());
        let merged = configuration(&[path("1.yaml"), path("2.yaml")], env).unwrap();
        assert!(!merged.metrics_enabled());
        assert_eq!(merged.denied_components(), ["state.redis"]);
        let error = configuration(&[path("1.yaml"), path("3.yaml")], env)
            .unwrap_err()
            .to_string();
        assert!(error.contains("3.yaml is not a Configuration: spec"), "{error}");
        assert!(
            configuration(&[path("none.yaml")], env)
                .unwrap_err()
                .to_string()
                .starts_with("cannot read")
        );
    }

    #[test]
    fn expansion_is_gos() {
        let env = |name: &str| (name == "A").then(|| "x".to_owned());
        assert_eq!(expand("$A ${A}b $B. cost $", &env), "x xb . cost ");
    }
}
