//! Generated gRPC and protobuf modules, and how they are encoded. Field numbers and names in `dapr` are upstream's; `outrigger` is ours.
#![allow(
    clippy::all,
    clippy::pedantic,
    clippy::implicit_clone,
    clippy::semicolon_if_nothing_returned,
    unreachable_pub,
    missing_docs
)]

pub mod codec;
pub mod lists;

pub mod dapr {
    pub mod proto {
        pub mod common {
            pub mod v1 {
                tonic::include_proto!("dapr.proto.common.v1");
            }
        }
        pub mod internals {
            pub mod v1 {
                tonic::include_proto!("dapr.proto.internals.v1");
            }
        }
        pub mod operator {
            pub mod v1 {
                tonic::include_proto!("dapr.proto.operator.v1");

                pub use crate::lists::{
                    ListComponentResponse, ListHttpEndpointsResponse, ListMcpServersResponse, ListResiliencyResponse,
                    ListSubscriptionsResponse, ListWorkflowAccessPolicyResponse,
                };
            }
        }
        pub mod runtime {
            pub mod v1 {
                tonic::include_proto!("dapr.proto.runtime.v1");
            }
        }
        pub mod sentry {
            pub mod v1 {
                tonic::include_proto!("dapr.proto.sentry.v1");
            }
        }
    }
}

/// What our programs say to each other beyond upstream's APIs.
pub mod outrigger {
    pub mod operator {
        pub mod v1 {
            tonic::include_proto!("outrigger.operator.v1");
        }
    }
}

pub use dapr::proto::{
    common::v1 as common, internals::v1 as internals, operator::v1 as operator, runtime::v1 as runtime,
    sentry::v1 as sentry,
};
