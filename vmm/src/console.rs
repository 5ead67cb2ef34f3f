//! The host's side of the first serial port: standard streams, a file, a pseudo-terminal or a socket.
//!
//! A [`Console`] belongs to the thread that drives the machine, which polls [`Console::event_source`]
//! and then calls [`Console::service`]; it has no thread of its own. Outputs are handles to one shared
//! sink, which a vCPU thread writes to under the serial port's lock: a machine that is rebuilt takes a
//! new one and goes on with the same host file.

mod error;
mod file;
mod output;
mod poll_set;
mod pty;
mod socket;

use std::fmt::{self, Debug};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

pub use error::ConsoleError;
use output::{Destination, Output, WhenFull};
use poll_set::{PollSet, Token};
use socket::Client;

use crate::config::SerialConfig;
use crate::listener::{ListenError, Listener};

/// Most bytes of input that one call of [`Console::service`] gives.
const READ_MAX_BYTES: usize = 4096;

/// Where input comes from: something to poll and to read from. A read has to give what there is without
/// waiting for more once the descriptor is readable.
pub trait ConsoleInput: AsFd + Read + Send {}

impl<T: AsFd + Read + Send> ConsoleInput for T {}

/// The host's side of a serial port.
pub struct Console {
    input: Input,
    /// None where nothing will ever come: input that has none, and nobody to listen for.
    poll_set: Option<PollSet>,
    output: Output,
    buffer: Vec<u8>,
    pty_path: Option<PathBuf>,
}

enum Input {
    None,
    Stream(Box<dyn ConsoleInput>),
    Socket {
        listener: Listener,
        client: Option<Client>,
    },
}

impl Console {
    /// Opens what `config` names. For [`SerialConfig::Stdio`] that is the standard input and output as
    /// they are: a terminal keeps its mode.
    ///
    /// # Errors
    ///
    /// [`ConsoleError`] when the file, pseudo-terminal or socket cannot be made, or when a socket's path
    /// belongs to somebody else. Nothing is left behind then.
    pub fn open(config: &SerialConfig) -> Result<Self, ConsoleError> {
        match config {
            SerialConfig::Stdio => {
                let input = io::stdin().as_fd().try_clone_to_owned();
                let input = std::fs::File::from(input.map_err(ConsoleError::Stdio)?);
                Self::on_stdout(Some(Box::new(input)))
            }
            SerialConfig::None => Ok(Self::new(Input::None, None, Destination::Nowhere)),
            SerialConfig::Pty => {
                let pty = pty::open().map_err(ConsoleError::Pty)?;
                let output = Destination::descriptor(&pty.device, WhenFull::Drop)
                    .map_err(ConsoleError::Pty)?;
                tracing::info!("the serial port is {}", pty.path.display());
                let path = pty.path.clone();
                let mut console =
                    Self::with_stream(Box::new(pty), output).map_err(ConsoleError::Pty)?;
                console.pty_path = Some(path);
                Ok(console)
            }
            SerialConfig::File(path) => {
                let output = file::open(path).map_err(|source| ConsoleError::file(path, source))?;
                Ok(Self::new(Input::None, None, output))
            }
            SerialConfig::Socket(path) => Self::on_socket(path),
        }
    }

    /// The standard output of the process, with an input of the caller's: one that looks for an escape
    /// key, for example.
    ///
    /// # Errors
    ///
    /// [`ConsoleError::Stdio`] when the host refuses a descriptor.
    pub fn on_stdout(input: Option<Box<dyn ConsoleInput>>) -> Result<Self, ConsoleError> {
        let output = Destination::descriptor(&io::stdout(), WhenFull::Wait);
        output
            .and_then(|output| match input {
                Some(input) => Self::with_stream(input, output),
                None => Ok(Self::new(Input::None, None, output)),
            })
            .map_err(ConsoleError::Stdio)
    }

    /// A console of the caller's. `output` is written to by vCPU threads, which wait for as long as
    /// it does; once it fails, that is logged and what follows is dropped.
    ///
    /// # Errors
    ///
    /// [`ConsoleError::Stdio`] when the host cannot poll `input`.
    pub fn from_parts(
        input: Option<Box<dyn ConsoleInput>>,
        output: Box<dyn Write + Send>,
    ) -> Result<Self, ConsoleError> {
        let output = Destination::Writer(output);
        match input {
            Some(input) => Self::with_stream(input, output).map_err(ConsoleError::Stdio),
            None => Ok(Self::new(Input::None, None, output)),
        }
    }

    /// A handle to the output, for a serial device. Its writes never fail: output that the host does
    /// not take is dropped, and that is logged once.
    pub fn output(&self) -> Box<dyn Write + Send> {
        Box::new(self.output.clone())
    }

    /// Whether a write may wait for the reader of a full pipe or of a stopped terminal; it may at first.
    /// The driver takes the permission away before it waits for a vCPU to stop or pause, which would
    /// otherwise last until that reader reads: what does not fit is then dropped.
    pub fn let_output_wait(&self, may_wait: bool) {
        self.output.let_wait(may_wait);
    }

    /// What to poll for readability: when it is readable, [`service`](Self::service) has something to
    /// do. It is the same descriptor for the console's whole life. None where nothing will ever come.
    pub fn event_source(&self) -> Option<BorrowedFd<'_>> {
        self.poll_set.as_ref().map(AsFd::as_fd)
    }

    /// Takes clients in, and gives at most `room` bytes of input, none if there is none now.
    ///
    /// To be called when the event source is readable, and when there is room again after a call
    /// without. With a `room` of 0 the event source stays silent about input until the next call with
    /// room, while the console goes on to take clients in. Never waits.
    pub fn service(&mut self, room: usize) -> &[u8] {
        let Some(poll_set) = &mut self.poll_set else {
            return &[];
        };
        if let Err(error) = self.input.watch(poll_set, room > 0) {
            tracing::warn!("serial input is lost: the host cannot poll it: {error}");
            self.input.end(poll_set, &self.output);
            return &[];
        }
        let ready = poll_set.ready();
        if ready.listener
            && let Input::Socket { listener, client } = &mut self.input
        {
            socket::accept(listener, client, poll_set, &self.output);
        }
        if !ready.input {
            return &[];
        }
        let most = room.min(READ_MAX_BYTES);
        self.buffer.resize(most, 0);
        match self.input.read(&mut self.buffer) {
            Ok(0) => self.input.end(poll_set, &self.output),
            Ok(count) => return self.buffer.get(..count).unwrap_or_default(),
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(error) => {
                tracing::info!("serial input ends: {error}");
                self.input.end(poll_set, &self.output);
            }
        }
        &[]
    }

    /// The pseudo-terminal that a user may open, where the console is one.
    pub fn pty_path(&self) -> Option<&Path> {
        self.pty_path.as_deref()
    }

    fn on_socket(path: &Path) -> Result<Self, ConsoleError> {
        let listener = Listener::bind(path)?;
        let poll_set = PollSet::new()
            .and_then(|mut set| {
                set.watch(&listener, Token::Listener)?;
                Ok(set)
            })
            .map_err(|source| ListenError::Host {
                path: path.to_owned(),
                source,
            })?;
        let input = Input::Socket {
            listener,
            client: None,
        };
        Ok(Self::new(input, Some(poll_set), Destination::Nowhere))
    }

    fn with_stream(input: Box<dyn ConsoleInput>, output: Destination) -> io::Result<Self> {
        let mut poll_set = PollSet::new()?;
        poll_set.watch(&input, Token::Input)?;
        Ok(Self::new(Input::Stream(input), Some(poll_set), output))
    }

    fn new(input: Input, poll_set: Option<PollSet>, output: Destination) -> Self {
        Self {
            input,
            poll_set,
            output: Output::new(output),
            buffer: Vec::new(),
            pty_path: None,
        }
    }
}

impl Input {
    /// Has the input polled while there is room for it.
    fn watch(&self, poll_set: &mut PollSet, room: bool) -> io::Result<()> {
        match self {
            Self::Stream(input) if room => poll_set.watch(input, Token::Input),
            Self::Stream(input) => poll_set.ignore(input, Token::Input),
            Self::Socket {
                client: Some(client),
                ..
            } => client.watch(poll_set, room),
            Self::None | Self::Socket { .. } => Ok(()),
        }
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Stream(input) => input.read(buffer),
            Self::Socket {
                client: Some(client),
                ..
            } => client.read(buffer),
            Self::None | Self::Socket { client: None, .. } => Err(ErrorKind::WouldBlock.into()),
        }
    }

    /// After the last byte of a stream, or of a client.
    fn end(&mut self, poll_set: &mut PollSet, output: &Output) {
        match self {
            Self::Stream(input) => {
                // A descriptor that the host no longer knows needs no forgetting.
                let _ = poll_set.ignore(input, Token::Input);
                *self = Self::None;
            }
            Self::Socket { client, .. } => socket::end(client, poll_set, output),
            Self::None => {}
        }
    }
}

impl Debug for Console {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let input = match &self.input {
            Input::None => "none",
            Input::Stream(_) => "stream",
            Input::Socket { client: None, .. } => "socket without client",
            Input::Socket { .. } => "socket with client",
        };
        formatter
            .debug_struct("Console")
            .field("input", &input)
            .field("output", &self.output)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
