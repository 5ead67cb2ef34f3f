//! What stops a machine from existing, for the person or program that wants one.

use std::fmt::{self, Display};

use crate::config::{Problem, Problems};

/// On whose side a mistake is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// Something that the configuration says or names: a user can mend it there.
    Configuration,
    /// The host: KVM, memory, threads.
    Host,
}

/// Why there is no machine, or no longer one. Displayed as one line for each problem.
#[derive(Debug)]
pub enum VmmError {
    /// Everything that is wrong with the configuration and what it names.
    Configuration(Problems),
    /// What the host refused.
    Host(Box<dyn std::error::Error + Send + Sync>),
}

impl VmmError {
    /// On whose side the mistake is.
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::Configuration(_) => ErrorKind::Configuration,
            Self::Host(_) => ErrorKind::Host,
        }
    }

    pub(crate) fn host(error: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Host(Box::new(error))
    }
}

impl Display for VmmError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Configuration(problems) => problems.fmt(formatter),
            Self::Host(error) => {
                write!(formatter, "{error}")?;
                // What a library's error keeps to itself: the chain of its causes.
                let mut cause = error.source();
                while let Some(error) = cause {
                    write!(formatter, ": {error}")?;
                    cause = error.source();
                }
                Ok(())
            }
        }
    }
}

impl std::error::Error for VmmError {}

impl From<Problems> for VmmError {
    fn from(problems: Problems) -> Self {
        Self::Configuration(problems)
    }
}

impl From<Problem> for VmmError {
    fn from(problem: Problem) -> Self {
        Self::Configuration(problem.into())
    }
}
