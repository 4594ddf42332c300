//! The process `injector`.

use std::process::ExitCode;

use outrigger_injector::args::Args;
use outrigger_process::{
    flags::{self, Style},
    logs::Service,
    runtime,
};

fn main() -> ExitCode {
    let args: Args = flags::parse_or_exit(Style::Pflag);
    let service = Service {
        title: "Dapr Sidecar Injector",
        scope: "dapr.injector",
        app_id: None,
    };
    let logs = args.logs.clone();
    runtime::run(service, &logs, || args.run())
}
