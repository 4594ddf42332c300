//! Flags that narrow down who gets which identity. Upstream has none of them; the defaults are its behaviour.

use std::collections::HashSet;

use anyhow::Context;
use outrigger_core::SpiffeId;

#[derive(clap::Args, Debug, Clone)]
pub struct PolicyArgs {
    /// SPIFFE ids that get no certificate.
    #[arg(long, value_delimiter = ',')]
    pub denied_ids: Vec<String>,
    /// Service accounts that pods of the control plane may run under; none means any.
    #[arg(long, value_delimiter = ',')]
    pub control_plane_service_accounts: Vec<String>,
    /// Without token validation: give identities of the control plane to callers on this machine only.
    #[arg(long)]
    pub insecure_control_plane_local_only: bool,
    /// Replicas of the scheduler, each of which gets a host name.
    #[arg(long, default_value = "3")]
    pub scheduler_replicas: u16,
    /// DNS domain of the cluster, in place of what the resolver says.
    #[arg(long)]
    pub cluster_domain: Option<String>,
}

/// The flags after validation.
#[derive(Debug, Clone, Default)]
pub(crate) struct Policy {
    pub(crate) denied: HashSet<SpiffeId>,
    pub(crate) control_plane_accounts: HashSet<String>,
    pub(crate) control_plane_local_only: bool,
    pub(crate) scheduler_replicas: u16,
}

impl PolicyArgs {
    pub(super) fn policy(&self) -> anyhow::Result<Policy> {
        let denied = self.denied_ids.iter().filter(|id| !id.is_empty()).map(|id| {
            let parsed: Result<SpiffeId, _> = id.trim().parse();
            parsed.with_context(|| format!("--denied-ids: {id:?}"))
        });
        Ok(Policy {
            denied: denied.collect::<anyhow::Result<_>>()?,
            control_plane_accounts: self
                .control_plane_service_accounts
                .iter()
                .filter(|name| !name.is_empty())
                .cloned()
                .collect(),
            control_plane_local_only: self.insecure_control_plane_local_only,
            scheduler_replicas: self.scheduler_replicas,
        })
    }
}
