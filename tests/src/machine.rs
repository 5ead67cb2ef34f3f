//! A machine as a process: `cuddy run` with its serial port on pipes.
//!
//! Two threads collect what the process writes, so that it never waits for a slow test; they end with the
//! process. Dropping a machine kills it.

use std::ffi::{OsStr, OsString};
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::{cuddy, guests};

/// Long enough for every step of every test on a busy host.
const DEADLINE: Duration = Duration::from_secs(60);

/// How a machine is to be started.
#[derive(Debug, Clone)]
pub struct MachineBuilder {
    kernel: PathBuf,
    command_line: String,
    memory: String,
    arguments: Vec<OsString>,
    standard_input: bool,
}

impl MachineBuilder {
    /// A machine that runs the tests `names`, separated by commas, of the guest with all tests.
    pub fn suite(names: &str) -> Self {
        Self {
            kernel: guests::path(guests::SUITE),
            command_line: format!("test={names}"),
            memory: "64M".to_owned(),
            arguments: Vec::new(),
            standard_input: true,
        }
    }

    /// Another kernel.
    #[must_use]
    pub fn kernel(mut self, path: PathBuf) -> Self {
        self.kernel = path;
        self
    }

    /// Adds words to the guest's command line.
    #[must_use]
    pub fn option(mut self, words: &str) -> Self {
        self.command_line.push(' ');
        self.command_line.push_str(words);
        self
    }

    /// Guest memory, 64 MiB without this.
    #[must_use]
    pub fn memory(mut self, size: &str) -> Self {
        size.clone_into(&mut self.memory);
        self
    }

    /// Adds an argument and its value.
    #[must_use]
    pub fn argument(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.arguments.push(name.into());
        self.arguments.push(value.as_ref().to_owned());
        self
    }

    /// [`pass`](Self::pass) with the devices on PCI, and again with them behind virtio-mmio.
    ///
    /// # Panics
    ///
    /// As for [`pass`](Self::pass).
    pub fn pass_on_each_transport(&self) {
        for transport in ["pci", "mmio"] {
            self.clone().argument("--transport", transport).pass();
        }
    }

    /// Closes the machine's standard input from the start.
    #[must_use]
    pub fn without_input(mut self) -> Self {
        self.standard_input = false;
        self
    }

    /// Starts the machine.
    ///
    /// # Panics
    ///
    /// When the process cannot be started.
    pub fn start(&self) -> Machine {
        let mut command = Command::new(cuddy());
        command
            .arg("run")
            .arg("--kernel")
            .arg(&self.kernel)
            .args(["--memory", &self.memory, "--cmdline", &self.command_line])
            .args(&self.arguments)
            .stdin(if self.standard_input {
                Stdio::piped()
            } else {
                Stdio::null()
            })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut process = command.spawn().expect("cuddy can be started");
        let input = process.stdin.take();
        let output = Collected::from(process.stdout.take().expect("a pipe"));
        let errors = Collected::from(process.stderr.take().expect("a pipe"));
        Machine {
            process,
            input,
            output,
            errors,
            position: 0,
        }
    }

    /// Starts the machine, waits for its end, and makes sure that all tests of its command line passed and
    /// that the guest turned it off.
    ///
    /// # Panics
    ///
    /// When a test did not pass or the machine ended otherwise.
    pub fn pass(&self) -> Finished {
        let finished = self.start().finish();
        let names = self
            .command_line
            .split_ascii_whitespace()
            .find_map(|word| word.strip_prefix("test="))
            .unwrap_or_default();
        for name in names.split(',') {
            assert!(
                finished.has_line(&format!("PASS {name}")),
                "{name} did not pass\n{finished}"
            );
        }
        assert!(finished.has_line("DONE"), "not done\n{finished}");
        assert_eq!(finished.code(), Some(0), "{finished}");
        finished
    }
}

/// A running machine.
#[derive(Debug)]
pub struct Machine {
    process: Child,
    input: Option<ChildStdin>,
    output: Collected,
    errors: Collected,
    /// How much of the output [`Machine::expect`] has seen.
    position: usize,
}

impl Machine {
    /// Waits until the guest has printed `text`, after what was expected before.
    ///
    /// # Panics
    ///
    /// When it does not within a minute, or the machine ends.
    pub fn expect(&mut self, text: &str) {
        self.expect_within(text, DEADLINE);
    }

    /// As [`Machine::expect`], with a deadline of its own.
    ///
    /// # Panics
    ///
    /// When the text does not come in time, or the machine ends.
    pub fn expect_within(&mut self, text: &str, deadline: Duration) {
        match self
            .output
            .wait_for(text.as_bytes(), self.position, deadline)
        {
            Some(end) => self.position = end,
            None => panic!("no {text:?}\n{}", self.transcript()),
        }
    }

    /// Takes the next `length` bytes that the guest prints.
    ///
    /// # Panics
    ///
    /// When they do not come within a minute.
    pub fn take(&mut self, length: usize) -> Vec<u8> {
        let end = self.position + length;
        assert!(
            self.output.wait_for_length(end, DEADLINE),
            "no {length} bytes\n{}",
            self.transcript()
        );
        let bytes = self.output.bytes()[self.position..end].to_vec();
        self.position = end;
        bytes
    }

    /// Types `bytes` into the serial port. Blocks while the pipe is full.
    ///
    /// # Panics
    ///
    /// When the machine does not take input any more.
    pub fn send(&mut self, bytes: &[u8]) {
        let input = self.input.as_mut().expect("an input that is open");
        input.write_all(bytes).expect("the machine takes input");
    }

    /// The other end of the serial port's input, to be written by another thread.
    ///
    /// # Panics
    ///
    /// When it was taken before.
    pub fn take_input(&mut self) -> ChildStdin {
        self.input.take().expect("an input that is open")
    }

    /// Sends a signal to the process.
    ///
    /// # Panics
    ///
    /// When the kernel refuses.
    pub fn signal(&self, signal: i32) {
        let process = i32::try_from(self.process.id()).expect("a process identifier");
        // SAFETY: the process is our child and not yet waited for, so that the identifier is its own.
        let result = unsafe { libc::kill(process, signal) };
        assert_eq!(result, 0, "kill");
    }

    /// Whether the process still runs after `duration`.
    ///
    /// # Panics
    ///
    /// When its state cannot be told.
    pub fn runs_for(&mut self, duration: Duration) -> bool {
        self.wait_for_end(duration).is_none()
    }

    /// Waits for the machine's end.
    ///
    /// # Panics
    ///
    /// When it does not end within a minute.
    pub fn finish(mut self) -> Finished {
        let Some(status) = self.wait_for_end(DEADLINE) else {
            panic!("the machine does not end\n{}", self.transcript());
        };
        Finished {
            status,
            output: self.output.finish(),
            errors: self.errors.finish(),
        }
    }

    fn wait_for_end(&mut self, limit: Duration) -> Option<ExitStatus> {
        let start = Instant::now();
        loop {
            let status = self.process.try_wait().expect("the process's state");
            if status.is_some() || start.elapsed() > limit {
                return status;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn transcript(&self) -> String {
        format!(
            "--- serial port\n{}\n--- standard error\n{}",
            String::from_utf8_lossy(&self.output.bytes()),
            String::from_utf8_lossy(&self.errors.bytes())
        )
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // A process that has ended already needs neither.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A machine that has ended.
#[derive(Debug)]
pub struct Finished {
    /// How the process ended.
    pub status: ExitStatus,
    /// What came out of the serial port.
    pub output: Vec<u8>,
    /// What the process said on its standard error.
    pub errors: Vec<u8>,
}

impl Finished {
    /// The process's exit code, `None` when a signal ended it.
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// The lines of the serial port.
    pub fn lines(&self) -> Vec<String> {
        String::from_utf8_lossy(&self.output)
            .lines()
            .map(str::to_owned)
            .collect()
    }

    /// Whether the guest printed exactly this line.
    pub fn has_line(&self, line: &str) -> bool {
        self.lines().iter().any(|other| other == line)
    }

    /// The rest of the first line that starts with `prefix`.
    ///
    /// # Panics
    ///
    /// When there is none.
    pub fn after(&self, prefix: &str) -> String {
        self.lines()
            .iter()
            .find_map(|line| line.strip_prefix(prefix))
            .unwrap_or_else(|| panic!("no line {prefix:?}\n{self}"))
            .to_owned()
    }

    /// How many lines the process said on its standard error.
    pub fn error_lines(&self) -> usize {
        String::from_utf8_lossy(&self.errors).lines().count()
    }
}

impl std::fmt::Display for Finished {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            formatter,
            "--- {}\n--- serial port\n{}\n--- standard error\n{}",
            self.status,
            String::from_utf8_lossy(&self.output),
            String::from_utf8_lossy(&self.errors)
        )
    }
}

/// What came through a pipe so far.
#[derive(Debug, Default)]
struct Received {
    bytes: Vec<u8>,
    ended: bool,
}

/// A pipe that a thread empties.
#[derive(Debug)]
struct Collected {
    received: Arc<(Mutex<Received>, Condvar)>,
    reader: Option<JoinHandle<()>>,
}

impl Collected {
    fn from(mut pipe: impl Read + Send + 'static) -> Self {
        let received = Arc::new((Mutex::new(Received::default()), Condvar::new()));
        let shared = Arc::clone(&received);
        let reader = std::thread::spawn(move || {
            let mut chunk = [0; 4096];
            let (state, changed) = &*shared;
            loop {
                let count = pipe.read(&mut chunk).unwrap_or(0);
                let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
                state.bytes.extend_from_slice(&chunk[..count]);
                state.ended = count == 0;
                changed.notify_all();
                if state.ended {
                    return;
                }
            }
        });
        Self {
            received,
            reader: Some(reader),
        }
    }

    fn bytes(&self) -> Vec<u8> {
        let (state, _) = &*self.received;
        state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .bytes
            .clone()
    }

    /// Where `text` ends that comes from `start` on, when it comes in time.
    fn wait_for(&self, text: &[u8], start: usize, limit: Duration) -> Option<usize> {
        let mut from = start;
        self.wait(limit, |bytes| {
            let place = bytes[from..]
                .windows(text.len())
                .position(|window| window == text)
                .map(|offset| from + offset + text.len());
            // What was searched need not be searched again.
            from = bytes.len().saturating_sub(text.len()).max(start);
            place
        })
    }

    fn wait_for_length(&self, length: usize, limit: Duration) -> bool {
        self.wait(limit, |bytes| (bytes.len() >= length).then_some(()))
            .is_some()
    }

    fn wait<T>(&self, limit: Duration, mut found: impl FnMut(&[u8]) -> Option<T>) -> Option<T> {
        let (state, changed) = &*self.received;
        let start = Instant::now();
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let answer = found(&state.bytes);
            if answer.is_some() || state.ended {
                return answer;
            }
            let left = limit.checked_sub(start.elapsed())?;
            state = changed
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    fn finish(&mut self) -> Vec<u8> {
        if let Some(reader) = self.reader.take() {
            // The reader does not panic, and ends with the pipe.
            let _ = reader.join();
        }
        self.bytes()
    }
}
