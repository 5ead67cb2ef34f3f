//! Why a console could not be opened.

use std::io;
use std::path::{Path, PathBuf};

use crate::config::Problem;
use crate::listener::ListenError;

/// Why a console could not be opened: what, and what to do, in one line.
#[derive(Debug, thiserror::Error)]
pub enum ConsoleError {
    /// The standard streams.
    #[error(
        "serial: the standard input or output cannot be used: {0}: choose another place, or none"
    )]
    Stdio(#[source] io::Error),
    /// A pseudo-terminal.
    #[error("no pseudo-terminal can be made: {0}: is /dev/pts mounted?")]
    Pty(#[source] io::Error),
    /// A file for the output.
    #[error("cannot write '{path}': {source}: name a file that may be made, in a directory that exists", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the host says.
        source: io::Error,
    },
    /// A socket.
    #[error(transparent)]
    Socket(#[from] ListenError),
}

impl From<ConsoleError> for Problem {
    fn from(error: ConsoleError) -> Self {
        Self::new("serial", error)
    }
}

impl ConsoleError {
    /// Whether another configuration would help, rather than another state of the host.
    pub const fn is_configuration(&self) -> bool {
        !matches!(self, Self::Stdio(_) | Self::Pty(_))
    }

    pub(super) fn file(path: &Path, source: io::Error) -> Self {
        Self::File {
            path: path.to_owned(),
            source,
        }
    }
}
