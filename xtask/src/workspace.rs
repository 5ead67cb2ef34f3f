//! The workspace as Cargo describes it, and Cargo's own commands.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::Failure;

/// The workspace that this program belongs to.
#[derive(Debug)]
pub(crate) struct Workspace {
    root: PathBuf,
    metadata: Value,
}

impl Workspace {
    /// Asks Cargo.
    pub(crate) fn find() -> Result<Self, Failure> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .ok_or("this program is in no workspace")?
            .to_owned();
        let output = Command::new(cargo())
            .args(["metadata", "--format-version", "1", "--no-deps"])
            .current_dir(&root)
            .output()
            .map_err(|error| format!("starting cargo: {error}"))?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        let metadata = serde_json::from_slice(&output.stdout)
            .map_err(|error| format!("cargo metadata: {error}"))?;
        Ok(Self { root, metadata })
    }

    /// The folder of the workspace.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The answer of `cargo metadata`.
    pub(crate) fn metadata(&self) -> &Value {
        &self.metadata
    }

    /// Cargo's target folder.
    pub(crate) fn target(&self) -> PathBuf {
        self.metadata
            .get("target_directory")
            .and_then(Value::as_str)
            .map_or_else(|| self.root.join("target"), PathBuf::from)
    }

    /// `cargo <subcommand>` in this workspace.
    pub(crate) fn cargo(&self, subcommand: &str) -> Command {
        let mut command = Command::new(cargo());
        command.arg(subcommand).current_dir(&self.root);
        command
    }

    /// Whether `cargo <subcommand>` is installed.
    pub(crate) fn has_subcommand(&self, subcommand: &str) -> bool {
        self.cargo(subcommand)
            .arg("--version")
            .output()
            .is_ok_and(|output| output.status.success())
    }
}

/// The Cargo that runs this program.
fn cargo() -> std::ffi::OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// A command as it would be typed.
pub(crate) fn command_line(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(
        command
            .get_args()
            .map(|word| word.to_string_lossy().into_owned()),
    );
    words.join(" ")
}
