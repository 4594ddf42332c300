//! Calls to the operator.

use std::{error::Error as _, time::Duration};

use bytes::Bytes;
use outrigger_core::backoff::Backoff;
use outrigger_process::health::Target;
use outrigger_proto::operator::{
    ComponentUpdateEvent, ComponentUpdateRequest, ConfigurationUpdateEvent, ConfigurationUpdateRequest,
    GetConfigurationRequest, ListComponentsRequest, operator_client::OperatorClient,
};
use tonic::{Code, Status, Streaming, transport::Channel};

use super::SHORTEST_PAUSE;
use crate::{
    resources::{DecodeError, component::Component},
    text,
};

/// Time for one attempt of a call.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest pause between attempts of a call at start.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Upstream's operator sends all components in one message.
const LARGEST_MESSAGE: usize = 64 << 20;

/// Why the sidecar cannot start with what the operator answers.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the operator at {address} refused to {what}: {reason}")]
    Refused {
        address: String,
        what: &'static str,
        reason: String,
    },
    #[error("configuration {name} not found in namespace {namespace}")]
    NoConfiguration { name: String, namespace: String },
}

/// What a list of components came to.
#[derive(Debug)]
pub struct Listed {
    pub components: Vec<Component>,
    /// What could not be read; they may be any of those known before.
    pub unreadable: Vec<(Bytes, DecodeError)>,
}

/// The operator's API for this workload; clones share the connection.
#[derive(Clone)]
pub struct Operator {
    client: OperatorClient<Channel>,
    namespace: String,
    address: String,
}

impl Operator {
    pub fn new(channel: Channel, namespace: &str, address: &str) -> Self {
        let client = OperatorClient::new(channel).max_decoding_message_size(LARGEST_MESSAGE);
        Self {
            client,
            namespace: namespace.to_owned(),
            address: address.to_owned(),
        }
    }

    /// Lists the components; one attempt.
    ///
    /// # Errors
    /// The status of the call.
    pub async fn list_components(&self) -> Result<Listed, Status> {
        let request = ListComponentsRequest {
            namespace: self.namespace.clone(),
        };
        let mut client = self.client.clone();
        let answer = timely(client.list_components(request)).await?;
        let mut listed = Listed {
            components: Vec::with_capacity(answer.components.len()),
            unreadable: Vec::new(),
        };
        for json in answer.components {
            match Component::from_json(&json) {
                Ok(component) => listed.components.push(component),
                Err(error) => listed.unreadable.push((json, error)),
            }
        }
        Ok(listed)
    }

    /// The JSON of a Configuration; empty when there is none.
    ///
    /// # Errors
    /// The status of the call.
    async fn configuration_json(&self, name: &str) -> Result<Bytes, Status> {
        let request = GetConfigurationRequest {
            name: name.to_owned(),
            namespace: self.namespace.clone(),
        };
        let mut client = self.client.clone();
        timely(client.get_configuration(request))
            .await
            .map(|answer| answer.configuration)
    }

    /// The JSON of the Configuration of that name, waiting for the operator as long as it takes.
    ///
    /// # Errors
    /// When the operator refuses or there is no such object.
    pub async fn configuration(&self, name: &str, waiting: &Target) -> Result<Bytes, Error> {
        let json = self
            .persistently("read the Configuration", waiting, || self.configuration_json(name))
            .await?;
        if json.is_empty() {
            return Err(Error::NoConfiguration {
                name: name.to_owned(),
                namespace: self.namespace.clone(),
            });
        }
        Ok(json)
    }

    /// The JSON of the Configuration of that name now; `None` when it cannot be had, which is logged.
    pub async fn configuration_now(&self, name: &str) -> Option<Bytes> {
        match self.configuration_json(name).await {
            Ok(json) => Some(json).filter(|json| !json.is_empty()),
            Err(status) => {
                let error = text::status(&status);
                tracing::warn!(error, name, "the Configuration cannot be read again");
                None
            }
        }
    }

    /// Lists the components, waiting for the operator as long as it takes.
    ///
    /// # Errors
    /// When the operator refuses.
    pub async fn first_components(&self, waiting: &Target) -> Result<Listed, Error> {
        self.persistently("list components", waiting, || self.list_components())
            .await
    }

    pub async fn component_updates(&self) -> Result<Streaming<ComponentUpdateEvent>, Status> {
        let request = ComponentUpdateRequest {
            namespace: self.namespace.clone(),
        };
        self.client
            .clone()
            .component_update(request)
            .await
            .map(tonic::Response::into_inner)
    }

    pub async fn configuration_updates(&self) -> Result<Streaming<ConfigurationUpdateEvent>, Status> {
        let request = ConfigurationUpdateRequest {
            namespace: self.namespace.clone(),
        };
        self.client
            .clone()
            .configuration_update(request)
            .await
            .map(tonic::Response::into_inner)
    }

    async fn persistently<T, F>(&self, what: &'static str, waiting: &Target, call: impl Fn() -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Status>>,
    {
        let mut backoff = Backoff::new(SHORTEST_PAUSE, LONGEST_PAUSE);
        loop {
            let status = match call().await {
                Ok(answer) => return Ok(answer),
                Err(status) => status,
            };
            let reason = text::status(&status);
            if !passing(&status) {
                return Err(Error::Refused {
                    address: self.address.clone(),
                    what,
                    reason,
                });
            }
            tracing::warn!(
                address = self.address,
                error = reason,
                "waiting for the operator to {what}"
            );
            waiting.not_ready(format!(
                "waiting for the operator at {} to {what}: {reason}",
                self.address
            ));
            tokio::time::sleep(backoff.next_pause()).await;
        }
    }
}

async fn timely<T>(call: impl Future<Output = Result<tonic::Response<T>, Status>>) -> Result<T, Status> {
    match tokio::time::timeout(CALL_TIMEOUT, call).await {
        Ok(result) => result.map(tonic::Response::into_inner),
        Err(_) => Err(Status::deadline_exceeded(format!("no answer within {CALL_TIMEOUT:?}"))),
    }
}

/// Whether another attempt may succeed. The operator's own errors are final, as upstream treats them; a broken connection shows
/// as an error with a cause.
fn passing(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unavailable | Code::ResourceExhausted | Code::DeadlineExceeded
    ) || status.source().is_some()
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn the_operators_own_errors_are_final_and_the_networks_are_not() {
        assert!(passing(&Status::unavailable("x")) && passing(&Status::deadline_exceeded("x")));
        assert!(!passing(&Status::unknown("not found")) && !passing(&Status::permission_denied("x")));
        assert!(passing(&Status::from_error(Box::new(io::Error::other("reset")))));
    }
}
