//! Resource requests and limits of the sidecar.

use std::collections::BTreeMap;

use k8s_openapi::{api::core::v1::ResourceRequirements, apimachinery::pkg::api::resource};

use super::quantity::{Quantity, QuantityError};
use crate::sidecar::Sidecar;

type List = BTreeMap<String, resource::Quantity>;

/// # Errors
/// One value that cannot be read spoils all: a request without its limit is not what was asked for.
pub(super) fn resources(sidecar: &Sidecar<'_>) -> Result<ResourceRequirements, QuantityError> {
    let requests = list(sidecar.cpu_request, sidecar.memory_request)?;
    let limits = list(sidecar.cpu_limit, sidecar.memory_limit)?;
    Ok(ResourceRequirements {
        requests,
        limits,
        ..ResourceRequirements::default()
    })
}

fn list(cpu: &str, memory: &str) -> Result<Option<List>, QuantityError> {
    let mut list = List::new();
    for (name, value) in [("cpu", cpu), ("memory", memory)] {
        if !value.is_empty() {
            let canonical = Quantity::parse(value)?.to_string();
            list.insert(name.to_owned(), resource::Quantity(canonical));
        }
    }
    Ok((!list.is_empty()).then_some(list))
}
