//! The certificate authority.

use std::process::ExitCode;

use outrigger_process::{flags, logs::Service, runtime};
use outrigger_sentry::Args;

fn main() -> ExitCode {
    let args: Args = flags::parse_or_exit(flags::Style::Pflag);
    let service = Service {
        title: "Dapr Sentry certificate authority",
        scope: "dapr.sentry",
        app_id: None,
    };
    let logs = args.logs.clone();
    runtime::run(service, &logs, || outrigger_sentry::run(args))
}
