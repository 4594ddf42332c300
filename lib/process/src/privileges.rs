//! What a process may run as.

/// Refuses to run as root, as every part does in Kubernetes unless `DAPR_UNSAFE_SKIP_CONTAINER_UID_GID_CHECK` is `true`
/// (then `skip` is set).
///
/// # Errors
/// When the effective user is root.
pub fn refuse_root(skip: bool) -> anyhow::Result<()> {
    if !skip && rustix::process::geteuid().is_root() {
        anyhow::bail!(
            "running as root (UID 0) is refused: run the container as another user, or set \
             DAPR_UNSAFE_SKIP_CONTAINER_UID_GID_CHECK=true"
        );
    }
    Ok(())
}
