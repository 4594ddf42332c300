//! Binary `daprd`.

fn main() -> std::process::ExitCode {
    outrigger_sidecar::run()
}
