//! Waiting for what the programs under test bring about in their own time.

use std::time::Duration;

/// For every wait: only a broken test takes as long.
const DEADLINE: Duration = Duration::from_secs(120);

/// Asks again and again until there is an answer.
///
/// # Panics
/// When there is none in two minutes.
#[expect(clippy::panic, reason = "that is how a test fails")]
pub async fn eventually<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let answered = async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    match tokio::time::timeout(DEADLINE, answered).await {
        Ok(answer) => answer,
        Err(_) => panic!("not in time: {what}"),
    }
}
