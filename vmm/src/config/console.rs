//! Where the serial port goes.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The host's side of the first serial port. Written as `stdio`, `none`, `pty`, `file=PATH` or
/// `socket=PATH`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum SerialConfig {
    /// The standard input and output of the process.
    #[default]
    Stdio,
    /// Output is dropped, there is no input.
    None,
    /// A new pseudo-terminal, whose name is logged.
    Pty,
    /// Output is written to a file, which is made, or emptied by the first byte; there is no input.
    File(PathBuf),
    /// A unix stream socket that is listened on; one client at a time, output is dropped without one.
    Socket(PathBuf),
}

impl TryFrom<String> for SerialConfig {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.split_once('=') {
            None if text == "stdio" => Ok(Self::Stdio),
            None if text == "none" => Ok(Self::None),
            None if text == "pty" => Ok(Self::Pty),
            Some(("file", path)) if !path.is_empty() => Ok(Self::File(path.into())),
            Some(("socket", path)) if !path.is_empty() => Ok(Self::Socket(path.into())),
            _ => Err(format!(
                "'{text}' is no place for a serial port: use stdio, none, pty, file=PATH or socket=PATH"
            )),
        }
    }
}

impl From<SerialConfig> for String {
    fn from(config: SerialConfig) -> Self {
        match config {
            SerialConfig::Stdio => "stdio".to_owned(),
            SerialConfig::None => "none".to_owned(),
            SerialConfig::Pty => "pty".to_owned(),
            SerialConfig::File(path) => format!("file={}", path.display()),
            SerialConfig::Socket(path) => format!("socket={}", path.display()),
        }
    }
}
