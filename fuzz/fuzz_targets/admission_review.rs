//! Admission reviews: whatever comes, the answer is one that the API server can work with.
#![no_main]

#[path = "../../injector/tests/mutations/answers.rs"]
mod answers;

use std::sync::LazyLock;

use axum::Router;
use libfuzzer_sys::fuzz_target;
use tokio::runtime::{Builder, Runtime};

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    let runtime = Builder::new_current_thread().enable_time().build();
    runtime.expect("a runtime")
});
static WEBHOOK: LazyLock<Router> = LazyLock::new(|| answers::webhook(include_str!("../seeds/bundle/anchors.pem")));

fuzz_target!(|data: &[u8]| {
    let (status, answer) = RUNTIME.block_on(answers::post(&WEBHOOK, data));
    answers::check(data, status, &answer);
});
