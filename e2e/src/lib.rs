//! A real Kubernetes on one bare machine, and the tools that tests and the demo use on it: no Docker, no registry.
//!
//! [`toolchain`] builds the programs, [`cluster`] starts one node in namespaces of its own, [`image`] packs images,
//! [`access`] runs kubectl and helm.

pub mod access;
pub mod bench;
pub mod cli;
pub mod cluster;
pub mod command;
pub mod demo;
pub mod image;
pub mod injection;
pub mod injector;
pub mod install;
mod node;
pub mod observe;
mod packages;
mod ports;
pub mod release;
pub mod rotations;
pub mod sample;
pub mod toolchain;

pub use access::Access;
pub use cluster::Cluster;
