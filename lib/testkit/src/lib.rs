//! What tests of several crates share. A dev-dependency only; `e2e` alone builds its tools on it.

pub mod anyone;
pub mod apiserver;
pub mod certs;
pub mod docs;
pub mod kubeconfig;
pub mod ports;
pub mod toolchain;
pub mod wait;
pub mod workloads;

pub use anyone::Anyone;
pub use apiserver::{ApiServer, FaultyApiServer};
pub use ports::free_ports;
pub use wait::eventually;
pub use workloads::Workloads;
