//! Runs helm on the chart and reads what it renders.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::{env, vec};

use outrigger_testkit::toolchain::Toolchain;
use serde_json::Value;

/// Namespace of the releases that are only rendered.
pub(crate) const NAMESPACE: &str = "dapr-system";

/// The objects of one release.
pub(crate) struct Release {
    pub(crate) text: String,
    pub(crate) objects: Vec<Value>,
}

impl Release {
    /// The one object of this kind and name.
    pub(crate) fn object<'a>(&'a self, kind: &str, name: &str) -> &'a Value {
        let found: Vec<_> = self.of_kind(kind).filter(|object| name_of(object) == name).collect();
        assert_eq!(found.len(), 1, "{kind} {name}");
        found[0]
    }

    pub(crate) fn of_kind<'a>(&'a self, kind: &str) -> vec::IntoIter<&'a Value> {
        let found: Vec<_> = self.objects.iter().filter(|object| object["kind"] == kind).collect();
        found.into_iter()
    }

    pub(crate) fn names<'a>(&'a self, kind: &str) -> BTreeSet<&'a str> {
        self.of_kind(kind).map(name_of).collect()
    }

    /// The pod that a Deployment makes.
    pub(crate) fn pod(&self, deployment: &str) -> &Value {
        &self.object("Deployment", deployment)["spec"]["template"]
    }

    /// The main container of a Deployment's pod, which is the first.
    pub(crate) fn container(&self, deployment: &str) -> &Value {
        &self.pod(deployment)["spec"]["containers"][0]
    }
}

pub(crate) fn name_of(object: &Value) -> &str {
    object["metadata"]["name"].as_str().expect("every object has a name")
}

/// The texts of a list.
pub(crate) fn texts(list: &Value) -> Vec<&str> {
    let list = list.as_array().expect("a list");
    list.iter().map(|item| item.as_str().expect("a text")).collect()
}

pub(crate) fn chart() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/dapr")
}

/// The chart of the CustomResourceDefinitions.
pub(crate) fn crds_chart() -> PathBuf {
    chart().with_file_name("dapr-crds")
}

/// Renders release `dapr` with values in YAML.
pub(crate) fn render(values: &str) -> Release {
    render_chart(&chart(), values)
}

/// Renders a chart as release `dapr`.
pub(crate) fn render_chart(chart: &Path, values: &str) -> Release {
    let output = run(&["template", "dapr", path(chart), "--namespace", NAMESPACE], values);
    assert!(output.status.success(), "{}\nvalues:\n{values}", stderr(&output));
    let text = String::from_utf8(output.stdout).expect("manifests are UTF-8");
    let objects = serde_saphyr::from_multiple(&text).expect("manifests are YAML without duplicate keys");
    Release { text, objects }
}

/// What helm says about values that it refuses.
pub(crate) fn refusal(values: &str) -> String {
    let chart = chart();
    let output = run(&["template", "dapr", path(&chart), "--namespace", NAMESPACE], values);
    assert!(!output.status.success(), "rendered in spite of values:\n{values}");
    stderr(&output)
}

/// Runs helm with values on its standard input.
pub(crate) fn run(arguments: &[&str], values: &str) -> Output {
    let mut child = Command::new(program())
        .args(arguments)
        .args(["--values", "-"])
        // Never the cluster that the person at the keyboard works with.
        .env_remove("KUBECONFIG")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("helm starts");
    let mut input = child.stdin.take().expect("standard input is piped");
    input.write_all(values.as_bytes()).expect("helm reads the values");
    drop(input);
    child.wait_with_output().expect("helm ends")
}

/// Runs helm without values.
pub(crate) fn plain(arguments: &[&str]) -> Output {
    let mut command = Command::new(program());
    let output = command.args(arguments).env_remove("KUBECONFIG").output();
    output.expect("helm ends")
}

pub(crate) fn path(path: &Path) -> &str {
    path.to_str().expect("the checkout's path is UTF-8")
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// `OUTRIGGER_HELM` tries another helm than the one built with the Kubernetes programs.
fn program() -> PathBuf {
    match env::var_os("OUTRIGGER_HELM") {
        Some(helm) => helm.into(),
        None => Toolchain::find().expect("helm is built").program("helm"),
    }
}
