//! Output of a serial port: one sink, many handles.
//!
//! Written by vCPU threads under the serial device's lock. A write never fails and is bounded: what the
//! host does not take is dropped, which is logged once, for the guest decides how often it happens.

use std::fmt::{self, Debug};
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// A pipe that is ready takes this many bytes without waiting (POSIX, PIPE_BUF).
const WRITE_MAX_BYTES: usize = 4096;
/// How long a writer waits before it looks whether it still may.
const WAIT_SLICE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 50_000_000,
};

/// A handle to the sink.
#[derive(Clone)]
pub(super) struct Output {
    shared: Arc<Shared>,
}

struct Shared {
    may_wait: AtomicBool,
    sink: Mutex<Sink>,
}

struct Sink {
    destination: Destination,
    loss_was_logged: bool,
}

/// Where output goes.
pub(super) enum Destination {
    Nowhere,
    Writer(Box<dyn Write + Send>),
    Descriptor { file: File, when_full: WhenFull },
}

/// What becomes of output for which a descriptor has no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WhenFull {
    /// It waits: the guest is as slow as the reader.
    Wait,
    /// It is dropped: the descriptor does not block and a reader may never come.
    Drop,
    /// There is always room: a regular file.
    Never,
}

impl Destination {
    /// A descriptor of its own for the same file as `descriptor`.
    pub(super) fn descriptor(descriptor: &impl AsFd, when_full: WhenFull) -> io::Result<Self> {
        let file = File::from(descriptor.as_fd().try_clone_to_owned()?);
        let when_full = if file.metadata()?.is_file() {
            WhenFull::Never
        } else {
            when_full
        };
        Ok(Self::Descriptor { file, when_full })
    }

    /// A client that does not block.
    pub(super) fn client(stream: UnixStream) -> Self {
        Self::Descriptor {
            file: File::from(std::os::fd::OwnedFd::from(stream)),
            when_full: WhenFull::Drop,
        }
    }

    /// Whether `error` is no more than a client's leave, which it may take at any time.
    fn client_left(&self, error: &io::Error) -> bool {
        matches!(
            self,
            Self::Descriptor {
                when_full: WhenFull::Drop,
                ..
            }
        ) && matches!(
            error.kind(),
            ErrorKind::BrokenPipe | ErrorKind::ConnectionReset
        )
    }

    fn write(&mut self, mut bytes: &[u8], may_wait: &AtomicBool) -> io::Result<()> {
        while !bytes.is_empty() {
            let written = match self {
                Self::Nowhere => return Ok(()),
                Self::Writer(writer) => return writer.write_all(bytes),
                Self::Descriptor { file, when_full } => {
                    if *when_full == WhenFull::Wait {
                        wait_for_room(file, may_wait)?;
                    }
                    let (chunk, _) = bytes.split_at(bytes.len().min(WRITE_MAX_BYTES));
                    match file.write(chunk) {
                        Err(error)
                            if error.kind() == ErrorKind::Interrupted
                                || (error.kind() == ErrorKind::WouldBlock
                                    && *when_full == WhenFull::Wait) =>
                        {
                            0
                        }
                        Ok(0) => return Err(ErrorKind::WriteZero.into()),
                        result => result?,
                    }
                }
            };
            bytes = bytes.get(written..).unwrap_or_default();
        }
        Ok(())
    }
}

/// Until `file` takes bytes without waiting, or fails, or nobody may wait any more.
fn wait_for_room(file: &File, may_wait: &AtomicBool) -> io::Result<()> {
    loop {
        let may_wait = may_wait.load(Ordering::Relaxed);
        let timeout = if may_wait {
            WAIT_SLICE
        } else {
            Timespec::default()
        };
        match poll(&mut [PollFd::new(file, PollFlags::OUT)], Some(&timeout)) {
            Ok(0) if may_wait => {}
            Ok(0) => return Err(ErrorKind::WouldBlock.into()),
            // A vCPU thread is kicked by signals, for reasons that are not the console's.
            Err(rustix::io::Errno::INTR) => {}
            result => return result.map(drop).map_err(io::Error::from),
        }
    }
}

impl Output {
    pub(super) fn new(destination: Destination) -> Self {
        Self {
            shared: Arc::new(Shared {
                may_wait: AtomicBool::new(true),
                sink: Mutex::new(Sink {
                    destination,
                    loss_was_logged: false,
                }),
            }),
        }
    }

    pub(super) fn let_wait(&self, may_wait: bool) {
        self.shared.may_wait.store(may_wait, Ordering::Relaxed);
    }

    /// From now on output goes to `destination`.
    pub(super) fn connect(&self, destination: Destination) {
        *self.sink() = Sink {
            destination,
            loss_was_logged: false,
        };
    }

    fn sink(&self) -> MutexGuard<'_, Sink> {
        self.shared
            .sink
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut sink = self.sink();
        if let Err(error) = sink.destination.write(bytes, &self.shared.may_wait) {
            if !sink.loss_was_logged && !sink.destination.client_left(&error) {
                tracing::warn!("output of the serial port is lost: {error}");
                sink.loss_was_logged = true;
            }
            let full = matches!(
                error.kind(),
                ErrorKind::WouldBlock | ErrorKind::StorageFull | ErrorKind::QuotaExceeded
            );
            if !full {
                sink.destination = Destination::Nowhere;
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        // A descriptor has no buffer of ours; what a caller's writer makes of it is its own affair.
        if let Destination::Writer(writer) = &mut self.sink().destination {
            return writer.flush();
        }
        Ok(())
    }
}

impl Debug for Output {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match &self.sink().destination {
            Destination::Nowhere => "nowhere",
            Destination::Writer(_) => "a writer",
            Destination::Descriptor { .. } => "a descriptor",
        };
        formatter.write_str(kind)
    }
}

#[cfg(test)]
mod tests;
