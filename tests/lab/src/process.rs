//! Programs of the host: running them, and finding them or fetching them from Debian.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::cache::Cache;
use crate::debian;
use crate::error::{Context, LabError, Result};

/// A program that can be run: installed on the host, or unpacked from its Debian package.
#[derive(Debug, Clone)]
pub struct Program {
    path: PathBuf,
    /// Where its package was unpacked, when it is not installed.
    unpacked: Option<PathBuf>,
}

impl Program {
    /// The program `name`: the installed one, or else that of Debian's `package`, unpacked in the
    /// cache with what it depends on. Nothing is installed.
    ///
    /// # Errors
    ///
    /// When it is not installed and cannot be fetched.
    pub fn find(cache: &Cache, package: &str, name: &str) -> Result<Self> {
        if let Some(path) = installed(name) {
            return Ok(Self {
                path,
                unpacked: None,
            });
        }
        let root = cache.entry(package, |new| {
            debian::unpack_with_dependencies(cache, package, new)
        })?;
        let path = ["usr/bin", "usr/sbin", "bin", "sbin"]
            .iter()
            .map(|folder| root.join(folder).join(name))
            .find(|path| path.exists())
            .ok_or_else(|| {
                LabError::Unusable(format!("Debian's package {package} has no program {name}"))
            })?;
        Ok(Self {
            path,
            unpacked: Some(root),
        })
    }

    /// A command of this program, with the environment in which it finds its own files.
    pub fn command(&self) -> Command {
        match &self.unpacked {
            None => Command::new(&self.path),
            Some(root) => self.command_unpacked(root),
        }
    }

    /// `LD_LIBRARY_PATH` of an unpacked program; empty for an installed one.
    pub fn libraries(&self) -> String {
        match &self.unpacked {
            None => String::new(),
            Some(root) => ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"]
                .map(|folder| root.join(folder).display().to_string())
                .join(":"),
        }
    }

    /// The folder in which the package was unpacked; `None` for an installed program.
    pub fn unpacked(&self) -> Option<&Path> {
        self.unpacked.as_deref()
    }

    /// The path of the program.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn command_unpacked(&self, root: &Path) -> Command {
        let mut command = Command::new(&self.path);
        command.env("LD_LIBRARY_PATH", self.libraries());
        let mut search = vec![root.join("usr/bin"), root.join("usr/sbin")];
        search.extend(search_path());
        if let Ok(search) = std::env::join_paths(search) {
            command.env("PATH", search);
        }
        command
    }
}

/// Runs `command` to its end and gives what it wrote on its output.
///
/// # Errors
///
/// When it cannot be started, or ends with another status than 0.
pub(crate) fn output_of(command: &mut Command) -> Result<String> {
    let line = command_line(command);
    let output = command
        .stdin(Stdio::null())
        .output()
        .context(|| format!("starting `{line}`"))?;
    if !output.status.success() {
        return Err(LabError::Command {
            command: line,
            status: output.status.to_string(),
            stderr: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        });
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Where an installed program is. Users other than root often lack the `sbin` folders in `PATH`.
pub(crate) fn installed(name: &str) -> Option<PathBuf> {
    search_path()
        .into_iter()
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
}

fn search_path() -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = std::env::var_os("PATH")
        .map(|path| std::env::split_paths(&path).collect())
        .unwrap_or_default();
    folders.push(PathBuf::from("/usr/sbin"));
    folders.push(PathBuf::from("/sbin"));
    folders
}

fn command_line(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(
        command
            .get_args()
            .map(|word| word.to_string_lossy().into_owned()),
    );
    words.join(" ")
}
