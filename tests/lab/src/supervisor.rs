//! Runs a job in the lab and watches over it. A lab that fails (it does not reach its init, falls
//! silent, or ends without a status) is told apart from a job that fails, and is started again.
//!
//! Threads: one reads L1's output, one its life signs; the caller's waits for both.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::{Context, LabError, Result};
use crate::l1::{Connection, Job, Lab};

/// Starts of one job at the most.
const ATTEMPTS: u32 = 3;
/// From QEMU's start to the first sign of life. It takes 3 s on an idle machine.
const START_LIMIT: Duration = Duration::from_secs(90);
/// Between two signs of life, of which L1 gives one a second.
const SILENCE_LIMIT: Duration = Duration::from_secs(45);
/// What a job may take. It is a test's failure to take longer.
const JOB_LIMIT: Duration = Duration::from_secs(900);
/// Exit status of a job that took longer, as `timeout` has it.
const STATUS_TIMEOUT: i32 = 124;
/// Bytes of L1's kernel messages that are shown when the lab fails.
const CONSOLE_TAIL: usize = 2000;

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Outcome {
    /// The job ended with this status.
    Status(i32),
    /// The lab failed.
    LabFailed(String),
}

/// A line on the control port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sign {
    Ready,
    Alive,
    Exit(i32),
    Closed,
}

/// Runs `job` in a fresh L1 and gives its exit status; what it writes goes to `output` as it comes.
///
/// # Errors
///
/// When the lab failed as often as it may, or the host cannot run it.
pub fn run(lab: &Lab, job: &Job, output: &mut (dyn Write + Send)) -> Result<i32> {
    let mut reasons = Vec::new();
    for attempt in 1..=ATTEMPTS {
        match attempt_once(lab, job, output)? {
            Outcome::Status(status) => return Ok(status),
            Outcome::LabFailed(reason) => {
                let next = match attempt {
                    ATTEMPTS => "giving up".to_owned(),
                    _ => format!("starting it again ({} of {ATTEMPTS})", attempt + 1),
                };
                let _ = writeln!(output, "cuddy-lab: the lab failed, {reason}; {next}");
                reasons.push(reason);
            }
        }
    }
    Err(LabError::Unusable(format!(
        "the lab failed {ATTEMPTS} times, which says nothing about the test: {}",
        reasons.join("; ")
    )))
}

fn attempt_once(lab: &Lab, job: &Job, output: &mut (dyn Write + Send)) -> Result<Outcome> {
    // Paths of Unix sockets are short, so this is not in the cache.
    let folder = tempfile::tempdir().context(|| "making a folder for the lab".to_owned())?;
    let path = |name: &str| folder.path().join(name);
    let (initramfs, console) = (path("initramfs"), path("console"));
    lab.write_initramfs(job, &initramfs)?;
    let output_listener = listen(&path("output"))?;
    let control_listener = listen(&path("control"))?;
    let mut command = lab.command(
        job.processors,
        &initramfs,
        Connection::Sockets {
            output: &path("output"),
            control: &path("control"),
            console: &console,
        },
    );
    let child = command
        .stdin(Stdio::null())
        .spawn()
        .context(|| "starting QEMU".to_owned())?;
    let mut qemu = Qemu(child);
    // QEMU connects before it does anything else; when it cannot start, it never does.
    let output_stream = accept(&output_listener, &mut qemu.0)?;
    let control_stream = accept(&control_listener, &mut qemu.0)?;

    thread::scope(|scope| {
        let pump = scope.spawn(move || copy(output_stream, output));
        let (sender, signs) = mpsc::channel();
        scope.spawn(move || read_signs(control_stream, &sender));
        let outcome = watch(&signs);
        drop(qemu);
        let copied = pump.join().unwrap_or(Ok(()));
        match outcome {
            Outcome::LabFailed(reason) => Ok(Outcome::LabFailed(with_console(&reason, &console))),
            outcome => copied
                .context(|| "passing the lab's output on".to_owned())
                .map(|()| outcome),
        }
    })
}

/// A running QEMU, which does not outlive this value.
struct Qemu(Child);

impl Drop for Qemu {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn watch(signs: &Receiver<Sign>) -> Outcome {
    watch_with_limits(signs, START_LIMIT, SILENCE_LIMIT, JOB_LIMIT)
}

fn watch_with_limits(
    signs: &Receiver<Sign>,
    start: Duration,
    silence: Duration,
    job: Duration,
) -> Outcome {
    let mut limit = start;
    let mut deadline = None;
    loop {
        match signs.recv_timeout(limit) {
            Ok(Sign::Exit(status)) => return Outcome::Status(status),
            Ok(Sign::Ready) => {
                limit = silence;
                deadline = Some(Instant::now() + job);
            }
            Ok(Sign::Alive) => {
                if deadline.is_some_and(|deadline| Instant::now() > deadline) {
                    return Outcome::Status(STATUS_TIMEOUT);
                }
            }
            Err(RecvTimeoutError::Timeout) if deadline.is_none() => {
                let reason = format!("not at its init after {} s", start.as_secs());
                return Outcome::LabFailed(reason);
            }
            Err(RecvTimeoutError::Timeout) => {
                return Outcome::LabFailed(format!("silent for {} s", silence.as_secs()));
            }
            Ok(Sign::Closed) | Err(RecvTimeoutError::Disconnected) => {
                return Outcome::LabFailed("it ended without a status".to_owned());
            }
        }
    }
}

fn read_signs(control: UnixStream, signs: &Sender<Sign>) {
    for line in BufReader::new(control).lines().map_while(io::Result::ok) {
        if let Some(sign) = parse_sign(&line) {
            let _ = signs.send(sign);
        }
    }
    let _ = signs.send(Sign::Closed);
}

fn parse_sign(line: &str) -> Option<Sign> {
    match line.trim() {
        "ready" => Some(Sign::Ready),
        "alive" => Some(Sign::Alive),
        line => line.strip_prefix("exit ")?.parse().ok().map(Sign::Exit),
    }
}

fn copy(mut from: UnixStream, to: &mut (dyn Write + Send)) -> io::Result<()> {
    let mut buffer = [0; 4096];
    loop {
        // A killed QEMU may reset the connection; what it had sent is then read already.
        let length = match from.read(&mut buffer) {
            Ok(0) | Err(_) => return Ok(()),
            Ok(length) => length,
        };
        to.write_all(&buffer[..length])?;
        to.flush()?;
    }
}

fn listen(path: &Path) -> Result<UnixListener> {
    let what = || format!("listening on {}", path.display());
    let listener = UnixListener::bind(path).context(what)?;
    listener.set_nonblocking(true).context(what)?;
    Ok(listener)
}

fn accept(listener: &UnixListener, qemu: &mut Child) -> Result<UnixStream> {
    let what = || "waiting for QEMU".to_owned();
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false).context(what)?;
                return Ok(stream);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(source) => {
                return Err(LabError::Io {
                    what: what(),
                    source,
                });
            }
        }
        if let Some(status) = qemu.try_wait().context(what)? {
            return Err(LabError::Unusable(format!(
                "QEMU did not start: {status}; it says above why"
            )));
        }
        thread::sleep(Duration::from_millis(5));
    }
}

fn with_console(reason: &str, console: &Path) -> String {
    let text = std::fs::read(console).unwrap_or_default();
    let tail = &text[text.len().saturating_sub(CONSOLE_TAIL)..];
    let tail = String::from_utf8_lossy(tail);
    match tail.trim() {
        "" => reason.to_owned(),
        tail => format!("{reason} (last messages of its kernel:\n{tail}\n)"),
    }
}

#[cfg(test)]
mod tests;
