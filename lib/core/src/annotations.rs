//! Annotation and label keys, nearly all under `dapr.io/`, and the values that upstream reads as "true".

/// On pods: asks for a sidecar.
pub const ENABLED: &str = "dapr.io/enabled";
/// On pods and app Services: the app id.
pub const APP_ID: &str = "dapr.io/app-id";
/// On pods: name of the Configuration that the sidecar uses.
pub const CONFIG: &str = "dapr.io/config";
/// On control-plane pods: which of the processes this is; decides the identity that sentry grants.
pub const CONTROL_PLANE: &str = "dapr.io/control-plane";

/// Label that the injector sets on every pod it patched.
pub const LABEL_INJECTED: &str = "dapr.io/sidecar-injected";
/// Label that the watchdog sets on pods that have a sidecar but lack [`LABEL_INJECTED`].
pub const LABEL_WATCHDOG_PATCHED: &str = "dapr.io/watchdog-patched";

/// Kubernetes' own, on the copies of static pods that the kubelet puts into the API server.
pub const MIRROR: &str = "kubernetes.io/config.mirror";

/// Name of the sidecar's container.
pub const SIDECAR_CONTAINER: &str = "daprd";

/// Upstream's lenient boolean: after trimming at most four characters and, ignoring case, one of
/// `y yes true t on 1`. Everything else, the empty string included, is false.
pub fn truthy(value: &str) -> bool {
    let value = value.trim();
    value.len() <= 4
        && ["y", "yes", "true", "t", "on", "1"]
            .iter()
            .any(|word| value.eq_ignore_ascii_case(word))
}

/// As [`truthy`], but an empty string counts as true.
pub fn truthy_default_true(value: &str) -> bool {
    value.is_empty() || truthy(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn truthy_accepts_upstreams_words_only() {
        for word in ["y", "Yes", "TRUE", "t", "on", "1", " true "] {
            assert!(truthy(word), "{word:?}");
        }
        for word in ["", "false", "truee", "2", "enabled", "0", "no"] {
            assert!(!truthy(word), "{word:?}");
        }
        assert!(truthy_default_true(""));
        assert!(!truthy_default_true("false"));
    }
}
