//! One default install on a real cluster, and what users rely on there. The cluster is started for the tests and removed
//! afterwards; set `KEEP_CLUSTER=1` to look around in it.

mod apps;
mod control_plane;
mod frame;
mod injection;
mod missing;
mod resources;
mod rights;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

use frame::{Frame, Test};

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // The tests share one install, and some of them stop parts of it.
    arguments.test_threads = Some(1);
    let tests: Vec<Test> = [
        resources::tests(),
        apps::tests(),
        injection::tests(),
        control_plane::tests(),
        missing::tests(),
        rights::tests(),
    ]
    .concat();
    if arguments.list {
        return libtest_mimic::run(
            &arguments,
            tests.iter().map(|test| Trial::test(test.name, || Ok(()))).collect(),
        )
        .exit_code();
    }
    let frame = match Frame::start() {
        Ok(frame) => frame,
        Err(error) => {
            eprintln!("no cluster to test on: {error:#}");
            return ExitCode::FAILURE;
        }
    };
    let trials = tests.into_iter().map(|test| frame.trial(test)).collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    if let Err(error) = frame.stop() {
        eprintln!("the cluster could not be removed: {error:#}");
        return ExitCode::FAILURE;
    }
    conclusion.exit_code()
}
