//! Generates the modules from `proto/` with a protobuf compiler in Rust: no `protoc` needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files = [
        "dapr/proto/common/v1/common.proto",
        "dapr/proto/internals/v1/service_invocation.proto",
        "dapr/proto/operator/v1/operator.proto",
        "dapr/proto/runtime/v1/dapr.proto",
        "dapr/proto/sentry/v1/sentry.proto",
        "outrigger/operator/v1/injections.proto",
        "outrigger/operator/v1/reports.proto",
    ];
    let descriptors = protox::compile(files, ["proto"])?;
    let lists = [
        ("ListComponentResponse", "ListComponentResponse"),
        ("ListSubscriptionsResponse", "ListSubscriptionsResponse"),
        ("ListResiliencyResponse", "ListResiliencyResponse"),
        ("ListHTTPEndpointsResponse", "ListHttpEndpointsResponse"),
        ("ListMCPServersResponse", "ListMcpServersResponse"),
        ("ListWorkflowAccessPolicyResponse", "ListWorkflowAccessPolicyResponse"),
    ];
    let mut builder = tonic_prost_build::configure();
    for (message, type_) in lists {
        builder = builder.extern_path(
            format!(".dapr.proto.operator.v1.{message}"),
            format!("crate::lists::{type_}"),
        );
    }
    builder
        // Channels come from the identity library, which owns TLS.
        .build_transport(false)
        .codec_path("crate::codec::LeanCodec")
        // Shared without copying: one encoded resource goes to every stream, one payload through every hop.
        .bytes(".")
        .skip_protoc_run()
        .compile_fds(descriptors)?;
    Ok(())
}
