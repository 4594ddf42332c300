//! What a process may run as.

/// Whether the environment lets the process run as root: the variable is exactly `true`, as upstream has it.
pub fn root_is_allowed() -> bool {
    std::env::var("DAPR_UNSAFE_SKIP_CONTAINER_UID_GID_CHECK").is_ok_and(|value| value == "true")
}

/// Refuses to run as root, as every part does in Kubernetes unless [`root_is_allowed`].
///
/// # Errors
/// When the effective user is root.
pub fn refuse_root(allowed: bool) -> anyhow::Result<()> {
    if !allowed && rustix::process::geteuid().is_root() {
        anyhow::bail!(
            "running as root (UID 0) is refused: run the container as another user, or set \
             DAPR_UNSAFE_SKIP_CONTAINER_UID_GID_CHECK=true"
        );
    }
    Ok(())
}
