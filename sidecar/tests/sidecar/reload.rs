//! Hot reload from files.

use std::{fs, path::Path};

use http::{Method, StatusCode};

use crate::support::{Daprd, message, store};

const STORE: &str = "state.in-memory";

/// As editors do: a new file in place of the old one.
fn write(folder: &Path, name: &str, text: &str) {
    let next = folder.join(format!(".{name}.next"));
    fs::write(&next, text).unwrap();
    fs::rename(&next, folder.join(name)).unwrap();
}

#[tokio::test]
async fn files_are_followed_and_mistakes_in_them_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    write(path, "one.yaml", &store("one", STORE, ""));
    let mut daprd = Daprd::running(
        &["--app-id", "cart", "--resources-path", &path.display().to_string()],
        &[],
    )
    .await;
    assert_eq!(
        daprd
            .http(Method::POST, "/v1.0/state/one", r#"[{"key":"k","value":1}]"#)
            .await
            .status,
        StatusCode::NO_CONTENT
    );

    write(path, "two.yaml", &store("two", STORE, ""));
    daprd.until_components(&["one", "two"]).await;

    // A type that does not exist, and a file that is no YAML: both keep what serves, and others go on being followed.
    write(path, "one.yaml", &store("one", "state.in-memroy", ""));
    let line = daprd
        .line(|line| message(line).starts_with("Failed to init component one"))
        .await;
    assert!(
        line["reason"]
            .as_str()
            .unwrap()
            .ends_with("(did you mean state.in-memory?)"),
        "{line}"
    );
    write(path, "two.yaml", "kind: [broken");
    daprd.line(|line| message(line) == "a resource cannot be read").await;
    write(path, "three.yaml", &store("three", STORE, ""));
    daprd.until_components(&["one", "three", "two"]).await;
    assert_eq!(daprd.http(Method::GET, "/v1.0/state/one/k", "").await.body, "1");

    // Once every file can be read again, what has no file is gone.
    fs::remove_file(path.join("two.yaml")).unwrap();
    write(path, "one.yaml", &store("one", STORE, r#"{"name": "a", "value": "b"}"#));
    daprd.until_components(&["one", "three"]).await;
    assert_eq!(daprd.http(Method::GET, "/v1.0/state/one/k", "").await.body, "1");

    // Two files with one name: nobody can say which is meant.
    write(path, "four.yaml", &store("three", STORE, ""));
    daprd
        .line(|line| message(line) == "resources cannot be read; what is loaded stays")
        .await;
    assert_eq!(daprd.components().await.len(), 2);
}

#[tokio::test]
async fn the_configuration_can_switch_reloading_off() {
    let folder = tempfile::tempdir().unwrap();
    let resources = folder.path().join("resources");
    fs::create_dir(&resources).unwrap();
    let config = folder.path().join("config.yaml");
    fs::write(
        &config,
        "kind: Configuration\nspec:\n  features:\n  - name: HotReload\n    enabled: false\n",
    )
    .unwrap();
    let words = [
        "--app-id",
        "cart",
        "--resources-path",
        &resources.display().to_string(),
        "--config",
        &config.display().to_string(),
    ];
    let mut daprd = Daprd::running(&words, &[]).await;
    let metadata = daprd.http(Method::GET, "/v1.0/metadata", "").await.json();
    assert!(metadata.get("enabledFeatures").is_none());
    assert!(!daprd.text().contains("Hot reloading enabled"));
}
