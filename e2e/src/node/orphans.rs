//! The first process of a PID namespace inherits orphans and has to collect them when they end.

use std::collections::HashSet;
use std::fs;
use std::time::Duration;

use rustix::process::{Pid, WaitOptions, getpid, waitpid};

const PERIOD: Duration = Duration::from_secs(5);

/// Collects for ever. Children that this process started itself are collected at once by who waits for them, so what is
/// seen as ended twice, a period apart, is an orphan.
pub(super) async fn reap() {
    let own = getpid().as_raw_nonzero().get();
    let mut ended_before = HashSet::new();
    loop {
        tokio::time::sleep(PERIOD).await;
        let ended = ended_children(own);
        for pid in ended.intersection(&ended_before).copied() {
            // An error means that it was collected in the meantime.
            let _ = waitpid(Pid::from_raw(pid), WaitOptions::NOHANG);
        }
        ended_before = ended;
    }
}

fn ended_children(parent: i32) -> HashSet<i32> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let ended =
        |pid: &i32| fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| is_ended_child(&stat, parent));
    numbers.filter(ended).collect()
}

/// `PID (NAME) STATE PARENT …`, where the name may contain anything.
fn is_ended_child(stat: &str, parent: i32) -> bool {
    let mut fields = stat.rsplit(") ").next().unwrap_or_default().split(' ');
    fields.next() == Some("Z") && fields.next().and_then(|field| field.parse().ok()) == Some(parent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ended_children_count() {
        assert!(is_ended_child("17 (sh) Z 1 17 17 0", 1));
        assert!(is_ended_child("17 (a) Z 5) b) Z 1 17", 1));
        assert!(!is_ended_child("17 (sh) S 1 17 17 0", 1));
        assert!(!is_ended_child("17 (sh) Z 2 17 17 0", 1));
        assert!(!is_ended_child("", 1));
    }
}
