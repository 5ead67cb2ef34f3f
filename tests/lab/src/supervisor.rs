//! Runs a job in the lab and watches over it. A lab that fails (it does not reach its init, falls
//! silent, or ends without a status) is told apart from a job that fails, and is started again.
//!
//! An L1 boots once: QEMU saves it when it has, as if it were to migrate, and a job begins in a copy that
//! is loaded in a tenth of the time.
//!
//! Threads: one reads L1's output, one its life signs; the caller's waits for both.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::error::{Context, LabError, Result};
use crate::l1::{Connection, Job, Lab, new_job_disk};

/// Starts of one job at the most.
const ATTEMPTS: u32 = 3;
/// From QEMU's start to the first sign of life. On an idle machine a boot takes 5 s, a load 1 s.
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
    /// Linux waits for its job.
    Booted,
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
    let state = lab.booted(job.processors, |new| save(lab, job.processors, new))?;
    let sockets = Sockets::new()?;
    let disk = sockets.path("job");
    lab.write_job(job, &disk)?;
    let mut command = lab.command(job.processors, &disk, sockets.connection());
    command
        .arg("-incoming")
        .arg(format!("file:{}", state.display()))
        .stdin(Stdio::null());
    let (qemu, output_stream, mut control) = sockets.start(&mut command)?;
    // What L1 waits for. It reads this when it has been loaded.
    control
        .write_all(b"go\n")
        .context(|| "starting the job".to_owned())?;

    thread::scope(|scope| {
        let pump = scope.spawn(move || copy(output_stream, output));
        let (sender, signs) = mpsc::channel();
        scope.spawn(move || read_signs(control, &sender));
        let outcome = watch(&signs);
        drop(qemu);
        let copied = pump.join().unwrap_or(Ok(()));
        match outcome {
            Outcome::LabFailed(reason) => Ok(Outcome::LabFailed(with_console(
                &reason,
                &sockets.path("console"),
            ))),
            outcome => copied
                .context(|| "passing the lab's output on".to_owned())
                .map(|()| outcome),
        }
    })
}

/// Boots an L1 of `processors` and saves it to `into` where it waits for its job.
pub(crate) fn save(lab: &Lab, processors: u8, into: &Path) -> Result<()> {
    let sockets = Sockets::new()?;
    let disk = sockets.path("job");
    new_job_disk(&disk)?;
    let mut command = lab.command(processors, &disk, sockets.connection());
    command
        .args(["-monitor", "stdio"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let (mut qemu, _output, control) = sockets.start(&mut command)?;
    let (sender, signs) = mpsc::channel();
    thread::spawn(move || read_signs(control, &sender));
    let failed = |reason: &str| {
        LabError::Unusable(with_console(
            &format!("the lab could not be saved: {reason}"),
            &sockets.path("console"),
        ))
    };
    if signs.recv_timeout(START_LIMIT) != Ok(Sign::Booted) {
        return Err(failed("not at its init"));
    }
    let what = || "talking to QEMU".to_owned();
    let (Some(mut monitor), Some(mut answers)) = (qemu.0.stdin.take(), qemu.0.stdout.take()) else {
        return Err(failed("QEMU has no monitor"));
    };
    // The second command is heeded when the first has ended.
    let commands = format!("migrate file:{}\nquit\n", into.display());
    monitor.write_all(commands.as_bytes()).context(what)?;
    let mut text = String::new();
    answers.read_to_string(&mut text).context(what)?;
    let is_saved = into.metadata().is_ok_and(|file| file.len() > 0);
    if text.contains("Error") || !is_saved {
        return Err(failed(text.trim()));
    }
    Ok(())
}

/// The sockets of a lab, and its other files.
#[derive(Debug)]
struct Sockets {
    /// Paths of Unix sockets are short, so this is not in the cache.
    folder: TempDir,
    output: PathBuf,
    control: PathBuf,
    console: PathBuf,
}

impl Sockets {
    fn new() -> Result<Self> {
        let folder = tempfile::tempdir().context(|| "making a folder for the lab".to_owned())?;
        let path = |name: &str| folder.path().join(name);
        let (output, control, console) = (path("output"), path("control"), path("console"));
        Ok(Self {
            folder,
            output,
            control,
            console,
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn connection(&self) -> Connection<'_> {
        Connection::Sockets {
            output: &self.output,
            control: &self.control,
            console: &self.console,
        }
    }

    /// Starts `command`, a QEMU that connects to both sockets before it does anything else, if it can start.
    fn start(&self, command: &mut Command) -> Result<(Qemu, UnixStream, UnixStream)> {
        let (output, control) = (listen(&self.output)?, listen(&self.control)?);
        let child = command.spawn().context(|| "starting QEMU".to_owned())?;
        let mut qemu = Qemu(child);
        let output = accept(&output, &mut qemu.0)?;
        let control = accept(&control, &mut qemu.0)?;
        Ok((qemu, output, control))
    }
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
            Ok(Sign::Booted) => {}
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
        "booted" => Some(Sign::Booted),
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
