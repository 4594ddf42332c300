//! The injector against a real API server: admission over its own TLS, the webhook's registration, the cluster's snapshot.

mod admission;
mod cluster;
mod registration;
mod support;
