//! A guest's serial console, as a test uses it: expect a text within a time, type, run a command.
//!
//! A thread reads what the machine writes; the test's thread searches in what has come so far. Every
//! text is found once: what was read up to it is behind the test.

use std::fmt;
use std::io::{Read, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Why a console did not give what was expected; with all that came since the last text that was found.
#[derive(Debug, thiserror::Error)]
pub enum ConsoleError {
    /// It did not come in time.
    #[error("no {expected:?} within {seconds} s; the console had:\n{rest}")]
    Timeout {
        /// The text.
        expected: String,
        /// The time that was given, in seconds.
        seconds: u64,
        /// What came instead.
        rest: String,
    },
    /// The machine ended.
    #[error("the machine ended before {expected:?}; the console had:\n{rest}")]
    Ended {
        /// The text.
        expected: String,
        /// What came instead.
        rest: String,
    },
    /// What was typed did not reach the machine.
    #[error("typing: {0}")]
    Typing(std::io::Error),
    /// A command in the guest ended with an error.
    #[error("`{command}` gave status {status}:\n{output}")]
    Status {
        /// The command.
        command: String,
        /// Its exit status.
        status: String,
        /// What it wrote.
        output: String,
    },
}

/// Both directions of a serial console.
pub struct Console {
    input: Box<dyn Write + Send>,
    received: Arc<Received>,
    commands: u32,
}

impl fmt::Debug for Console {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Console")
            .field("commands", &self.commands)
            .finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct Received {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    bytes: Vec<u8>,
    /// Bytes up to here were found by a test.
    found: usize,
    ended: bool,
}

impl Received {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Console {
    /// The console of a machine whose serial port reads what is written to `input`, and writes what is read
    /// from `output`.
    pub fn new(input: impl Write + Send + 'static, output: impl Read + Send + 'static) -> Self {
        let input = Box::new(input);
        let received = Arc::new(Received::default());
        let reader = Arc::clone(&received);
        thread::spawn(move || read_all(output, &reader));
        Self {
            input,
            received,
            commands: 0,
        }
    }

    /// Waits for `text` and gives what came before it.
    ///
    /// # Errors
    ///
    /// When it does not come within `limit`, or the machine ends.
    pub fn expect(&mut self, text: &str, limit: Duration) -> Result<String, ConsoleError> {
        let deadline = Instant::now() + limit;
        let mut state = self.received.lock();
        loop {
            let start = state.found;
            if let Some(position) = find(&state.bytes[start..], text.as_bytes()) {
                let end = start + position;
                state.found = end + text.len();
                return Ok(String::from_utf8_lossy(&state.bytes[start..end]).into_owned());
            }
            let rest = || String::from_utf8_lossy(&state.bytes[start..]).into_owned();
            if state.ended {
                return Err(ConsoleError::Ended {
                    expected: text.to_owned(),
                    rest: rest(),
                });
            }
            let Some(left) = deadline.checked_duration_since(Instant::now()) else {
                return Err(ConsoleError::Timeout {
                    expected: text.to_owned(),
                    seconds: limit.as_secs(),
                    rest: rest(),
                });
            };
            state = self
                .received
                .changed
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Types `text`.
    ///
    /// # Errors
    ///
    /// When the machine does not take it.
    pub fn send(&mut self, text: &str) -> Result<(), ConsoleError> {
        self.input
            .write_all(text.as_bytes())
            .and_then(|()| self.input.flush())
            .map_err(ConsoleError::Typing)
    }

    /// Runs `command` in the guest's shell and gives what it wrote, without white space at the ends.
    ///
    /// # Errors
    ///
    /// When it does not end within `limit` or ends with another status than 0.
    pub fn run(&mut self, command: &str, limit: Duration) -> Result<String, ConsoleError> {
        self.commands += 1;
        let number = self.commands;
        // The terminal echoes what is typed; the quotes keep the echo from being taken for the output.
        self.send(&format!(
            "echo '<''{number}'; {command}; echo '>''{number}' $?\n"
        ))?;
        self.expect(&format!("<{number}\r\n"), limit)?;
        let output = self.expect(&format!(">{number} "), limit)?;
        let status = self.expect("\r\n", limit)?;
        let output = output.replace("\r\n", "\n").trim().to_owned();
        if status == "0" {
            return Ok(output);
        }
        Err(ConsoleError::Status {
            command: command.to_owned(),
            status,
            output,
        })
    }

    /// All that the machine wrote so far.
    pub fn transcript(&self) -> String {
        String::from_utf8_lossy(&self.received.lock().bytes).into_owned()
    }
}

fn read_all(mut output: impl Read, received: &Received) {
    let mut buffer = [0; 4096];
    loop {
        let length = output.read(&mut buffer).unwrap_or(0);
        let mut state = received.lock();
        state.bytes.extend_from_slice(&buffer[..length]);
        state.ended = length == 0;
        received.changed.notify_all();
        if state.ended {
            return;
        }
    }
}

fn find(bytes: &[u8], text: &[u8]) -> Option<usize> {
    bytes.windows(text.len()).position(|window| window == text)
}

#[cfg(test)]
mod tests;
