//! The operator's binary.

use std::process::ExitCode;

use outrigger_operator::{args::Args, run::run};
use outrigger_process::{flags, logs::Service, runtime};

fn main() -> ExitCode {
    let args: Args = flags::parse_or_exit(flags::Style::GoFlag);
    let service = Service {
        title: "Dapr Operator",
        scope: "dapr.operator",
        app_id: None,
    };
    let logs = args.logs.clone();
    runtime::run(service, &logs, || run(args))
}
