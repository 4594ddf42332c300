//! The Helm chart: what it renders, what it refuses, and what a real API server makes of it.

mod crds;
mod defaults;
mod gitops;
mod helm;
mod install;
mod rbac;
mod refusals;
mod security;
mod variants;
