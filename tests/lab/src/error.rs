//! What can go wrong while the lab is prepared and run. None of it is a test's own failure.

use std::io;

/// A failure of the lab or of the host programs that it uses.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// A file or a process of the host.
    #[error("{what}: {source}")]
    Io {
        /// What was being done, and to which file.
        what: String,
        /// What the host answered.
        source: io::Error,
    },
    /// A program of the host ended with an error.
    #[error("`{command}` failed with {status}: {stderr}")]
    Command {
        /// The command line.
        command: String,
        /// How it ended.
        status: String,
        /// What it wrote on its error output.
        stderr: String,
    },
    /// Something is not as it has to be; the text says what, and what to do.
    #[error("{0}")]
    Unusable(String),
}

/// Result of the lab's own functions.
pub type Result<T> = std::result::Result<T, LabError>;

/// Adds to an I/O error what was being done.
pub(crate) trait Context<T> {
    /// `what` is evaluated on errors only.
    fn context(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T> Context<T> for io::Result<T> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| LabError::Io {
            what: what(),
            source,
        })
    }
}
