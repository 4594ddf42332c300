//! Where log lines go. Busy processes log a line for each request, and a write of each to a pipe costs as much as some of these
//! requests, and the time that other threads wait for it. So a thread of its own writes what has gathered; who logs a warning or
//! an error writes it himself, with what waits before it.

use std::{
    io::{self, Write},
    mem,
    sync::Arc,
    thread,
    time::Duration,
};

use parking_lot::{Condvar, Mutex};
use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

/// How long lines gather. What a killed process logged in this time is lost, unless it was a warning or an error.
const GATHER: Duration = Duration::from_millis(5);
/// Bytes that may wait; who logs more writes it himself, and so waits for whoever reads too slowly.
const MOST: usize = 64 << 10;

/// Log lines on their way; clones share it.
#[derive(Clone)]
pub struct Output {
    shared: Arc<Shared>,
}

struct Shared {
    /// Whole lines, not yet given to the sink.
    waiting: Mutex<Vec<u8>>,
    /// Lines wait where none did.
    some: Condvar,
    /// Locked before `waiting` by who writes, so that lines keep their order.
    sink: Mutex<Sink>,
}

struct Sink {
    to: Box<dyn Write + Send>,
    /// The buffer that takes turns with `waiting`.
    lines: Vec<u8>,
}

impl Output {
    /// Starts the thread that writes.
    ///
    /// # Errors
    /// When there can be no more threads.
    pub fn start(to: impl Write + Send + 'static) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            waiting: Mutex::default(),
            some: Condvar::new(),
            sink: Mutex::new(Sink {
                to: Box::new(to),
                lines: Vec::new(),
            }),
        });
        let output = Self { shared };
        let writing = output.clone();
        thread::Builder::new()
            .name("logs".into())
            .spawn(move || writing.follow())?;
        Ok(output)
    }

    fn follow(&self) {
        loop {
            self.shared
                .some
                .wait_while(&mut self.shared.waiting.lock(), |waiting| waiting.is_empty());
            #[expect(clippy::disallowed_methods, reason = "this thread is its own")]
            thread::sleep(GATHER);
            self.flush();
        }
    }

    /// Writes all that waits.
    pub fn flush(&self) {
        let mut sink = self.shared.sink.lock();
        let Sink { to, lines } = &mut *sink;
        mem::swap(lines, &mut *self.shared.waiting.lock());
        // Where logs cannot be written, there is nobody to tell.
        let _ = to.write_all(lines).and_then(|()| to.flush());
        lines.clear();
    }

    /// For where this thread may hold a lock already.
    fn flush_if_free(&self) {
        if self.shared.waiting.try_lock().is_some() && self.shared.sink.try_lock().is_some() {
            self.flush();
        }
    }

    fn add(&self, line: &[u8], at_once: bool) {
        let mut waiting = self.shared.waiting.lock();
        let first = waiting.is_empty();
        waiting.extend_from_slice(line);
        let much = waiting.len() > MOST;
        drop(waiting);
        if at_once || much {
            self.flush();
        } else if first {
            self.shared.some.notify_one();
        }
    }
}

/// Has what was logged before a panic written before what the panic says.
pub(super) fn flush_on_panic(output: Output) {
    let next = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        output.flush_if_free();
        next(panic);
    }));
}

impl<'a> MakeWriter<'a> for Output {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line {
            output: self,
            at_once: true,
        }
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> Line<'a> {
        Line {
            output: self,
            at_once: *metadata.level() <= Level::WARN,
        }
    }
}

/// Takes one line, which comes in one piece.
pub struct Line<'a> {
    output: &'a Output,
    at_once: bool,
}

impl Write for Line<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.output.add(line, self.at_once);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Every write that arrives.
    struct Writes(mpsc::Sender<String>);

    impl Write for Writes {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.send(String::from_utf8(bytes.to_vec()).unwrap()).unwrap();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn output() -> (Output, mpsc::Receiver<String>) {
        let (sender, writes) = mpsc::channel();
        (Output::start(Writes(sender)).unwrap(), writes)
    }

    #[test]
    fn a_line_is_written_without_being_asked_for() {
        let (output, writes) = output();
        output.add(b"one\n", false);
        assert_eq!(writes.recv().unwrap(), "one\n");
        output.add(b"two\n", false);
        assert_eq!(writes.recv().unwrap(), "two\n");
    }

    #[test]
    fn a_warning_is_written_when_it_is_logged_and_after_what_came_before() {
        let (output, writes) = output();
        output.add(b"one\n", false);
        output.add(b"warning\n", true);
        assert_eq!(writes.try_iter().collect::<String>(), "one\nwarning\n");
    }

    #[test]
    fn lines_of_many_threads_are_all_written_whole_and_each_threads_in_order() {
        let (output, writes) = output();
        thread::scope(|threads| {
            for thread in 0..4 {
                let output = &output;
                threads.spawn(move || {
                    for line in 0..10_000 {
                        output.add(format!("{thread} {line}\n").as_bytes(), line % 1000 == 0);
                    }
                });
            }
        });
        output.flush();
        let text: String = writes.try_iter().collect();
        let mut next = [0; 4];
        for line in text.lines() {
            let (thread, line) = line.split_once(' ').unwrap();
            let next = &mut next[thread.parse::<usize>().unwrap()];
            assert_eq!(line.parse(), Ok(*next));
            *next += 1;
        }
        assert_eq!(next, [10_000; 4]);
    }

    #[test]
    fn no_more_than_the_bound_waits() {
        let (output, writes) = output();
        let sink = output.shared.sink.lock();
        let line = vec![b'x'; MOST];
        output.add(&line, false);
        let logging = thread::spawn({
            let output = output.clone();
            move || output.add(b"\n", false)
        });
        assert!(writes.try_recv().is_err());
        assert!(!logging.is_finished());
        drop(sink);
        logging.join().unwrap();
        assert_eq!(writes.try_iter().map(|write| write.len()).sum::<usize>(), MOST + 1);
    }
}
