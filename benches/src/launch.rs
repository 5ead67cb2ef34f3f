//! One run of a program: how long until it writes, how long until it ends.

use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags, open};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use crate::Failure;

/// No run takes this long unless something is wrong.
const LIMIT: Duration = Duration::from_secs(60);

/// What a program reads from.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Input {
    /// Nothing.
    None,
    /// A terminal at which nobody types.
    Terminal,
}

/// A program with its output at hand, killed when dropped.
#[derive(Debug)]
pub(crate) struct Run {
    child: Child,
    output: ChildStdout,
    /// Our end of its terminal, which is there as long as this is open.
    _terminal: Option<OwnedFd>,
    started: Instant,
    written: Vec<u8>,
}

impl Run {
    pub(crate) fn start(command: &mut Command, input: Input) -> Result<Self, Failure> {
        let terminal = match input {
            Input::None => None,
            Input::Terminal => Some(open_terminal()?),
        };
        let (terminal, input) = match terminal {
            None => (None, Stdio::null()),
            Some((ours, theirs)) => (Some(ours), theirs.into()),
        };
        command
            .stdin(input)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let started = Instant::now();
        let mut child = command
            .spawn()
            .map_err(|error| format!("starting {}: {error}", command.get_program().display()))?;
        let output = child.stdout.take().ok_or("no pipe")?;
        Ok(Self {
            child,
            output,
            _terminal: terminal,
            started,
            written: Vec::new(),
        })
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// All that it has written until now.
    pub(crate) fn written(&self) -> String {
        String::from_utf8_lossy(&self.written).into_owned()
    }

    /// Waits until it has written `text`; gives the time since its start.
    pub(crate) fn until(&mut self, text: &[u8]) -> Result<Duration, Failure> {
        self.until_any(&[text])
    }

    /// Waits until it has written one of `texts`; gives the time since its start.
    pub(crate) fn until_any(&mut self, texts: &[&[u8]]) -> Result<Duration, Failure> {
        loop {
            let more = self.read()?;
            let elapsed = self.started.elapsed();
            if texts.iter().any(|text| contains(&self.written, text)) {
                return Ok(elapsed);
            }
            if !more {
                return Err(self.without_what_was_expected());
            }
        }
    }

    /// Waits until it has ended; gives the time since its start.
    pub(crate) fn until_end(&mut self) -> Result<Duration, Failure> {
        while self.read()? {}
        let status = self.child.wait()?;
        let elapsed = self.started.elapsed();
        if status.success() {
            Ok(elapsed)
        } else {
            Err(self.without_what_was_expected())
        }
    }

    /// Takes what it writes next; false at the end.
    fn read(&mut self) -> Result<bool, Failure> {
        let left = LIMIT.saturating_sub(self.started.elapsed());
        let mut polled = libc::pollfd {
            fd: self.output.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        let timeout = i32::try_from(left.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: one descriptor is polled, which lives through the call.
        match unsafe { libc::poll(&raw mut polled, 1, timeout) } {
            0 => return Err(self.without_what_was_expected()),
            ..0 => return Err(io::Error::last_os_error().into()),
            _ => {}
        }
        let mut buffer = [0; 4096];
        let count = self.output.read(&mut buffer)?;
        self.written.extend_from_slice(&buffer[..count]);
        Ok(count > 0)
    }

    /// Ends it, and says what it said.
    fn without_what_was_expected(&mut self) -> Failure {
        let _ = self.child.kill();
        let status = self.child.wait();
        let mut errors = String::new();
        if let Some(mut stderr) = self.child.stderr.take() {
            let _ = stderr.read_to_string(&mut errors);
        }
        let status = status.map_or_else(|error| error.to_string(), |status| status.to_string());
        let output = String::from_utf8_lossy(&self.written);
        format!("{status}; output {output:?}; {}", errors.trim()).into()
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A pseudo-terminal: our end and the program's.
fn open_terminal() -> Result<(OwnedFd, OwnedFd), Failure> {
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    grantpt(&ours)?;
    unlockpt(&ours)?;
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let theirs = open(ptsname(&ours, Vec::new())?, flags, Mode::empty())?;
    Ok((ours, theirs))
}

fn contains(bytes: &[u8], text: &[u8]) -> bool {
    bytes.windows(text.len()).any(|window| window == text)
}
