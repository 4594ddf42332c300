//! Whether the cluster knows native sidecars: an older API server drops the restart policy of init containers, and the pod
//! then waits for ever for its sidecar to end.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::version::Info;

use super::{Cluster, POLL};

/// The first minor version of Kubernetes 1 that has them on by default.
const NATIVE_SIDECARS: u32 = 29;
/// Clusters are upgraded under a running injector.
const REFRESH: Duration = Duration::from_secs(600);

/// Asks the API server for its version, again and again. Everybody may; where it is refused, native sidecars are as wanted.
pub async fn follow(client: kube::Client, cluster: Cluster) {
    let mut warned = false;
    loop {
        let pause = match client.apiserver_version().await {
            Ok(info) => {
                warned = false;
                cluster.set_too_old_for_native_sidecars(too_old(&info));
                REFRESH
            }
            Err(error) => {
                if !std::mem::replace(&mut warned, true) {
                    tracing::warn!(%error, "the cluster's version cannot be read; native sidecars are taken to be possible");
                }
                POLL
            }
        };
        tokio::time::sleep(pause).await;
    }
}

/// The version in short, when it has no native sidecars. Providers append to the minor version: `28+`.
fn too_old(info: &Info) -> Option<String> {
    let number = |text: &str| {
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        text[..digits].parse::<u32>().ok()
    };
    let (major, minor) = (number(&info.major)?, number(&info.minor)?);
    ((major, minor) < (1, NATIVE_SIDECARS)).then(|| format!("{major}.{minor}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_told_apart_and_unknown_ones_pass() {
        for (major, minor, expected) in [
            ("1", "28", Some("1.28")),
            ("1", "28+", Some("1.28")),
            ("1", "29", None),
            ("1", "33+", None),
            ("2", "0", None),
            ("", "", None),
        ] {
            let info = Info {
                major: major.to_owned(),
                minor: minor.to_owned(),
                ..Info::default()
            };
            assert_eq!(too_old(&info).as_deref(), expected, "{major}.{minor}");
        }
    }
}
