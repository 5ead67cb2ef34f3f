//! The QEMU that the lab runs in.
//!
//! Until version 10.2, QEMU's software CPU loses interrupts where SVM is used: `do_vmexit` clears a bit
//! of `interrupt_request` without the lock under which other threads set bits there, so an interrupt
//! of L1 that arrives in that moment is forgotten (the series "cpu: use atomics for interrupt_request",
//! qemu-devel, August 2025, mends it). Lost timers and IPIs freeze one of L1's processors, and with it the
//! machine under test. An installed QEMU is used when it is new enough, else one of Debian's backports with
//! all its libraries, unpacked in the cache.

use std::path::PathBuf;
use std::process::Command;

use crate::cache::Cache;
use crate::debian;
use crate::error::{LabError, Result};
use crate::process::{installed, output_of};

const PROGRAM: &str = "qemu-system-x86_64";
/// The first version that loses no interrupt.
const MINIMUM: (u32, u32) = (10, 2);

/// A Debian that has a QEMU which is new enough.
const RELEASE: &str = "trixie";
const PACKAGE: &str = "qemu-system-x86";
const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";

/// A QEMU that can be run.
#[derive(Debug, Clone)]
pub enum Qemu {
    /// The host's.
    Installed(PathBuf),
    /// One that brings all its libraries, in this folder.
    Unpacked(PathBuf),
}

impl Qemu {
    /// The host's QEMU, if it is new enough, or else Debian's.
    ///
    /// # Errors
    ///
    /// When it cannot be fetched.
    pub fn find(cache: &Cache) -> Result<Self> {
        if let Some(host) = installed(PROGRAM).map(Self::Installed)
            && host.version().is_ok_and(|text| is_new_enough(&text))
        {
            return Ok(host);
        }
        let root = cache.entry(&format!("{PACKAGE}-{RELEASE}"), |new| {
            eprintln!("cuddy-lab: fetching a QEMU that loses no interrupts into the cache");
            debian::unpack_of_release(cache, RELEASE, PACKAGE, new)
        })?;
        let program = root.join("usr/bin").join(PROGRAM);
        if !program.exists() {
            return Err(LabError::Unusable(format!(
                "Debian's package {PACKAGE} has no program {PROGRAM}"
            )));
        }
        Ok(Self::Unpacked(root))
    }

    /// What it says of its version.
    ///
    /// # Errors
    ///
    /// When it cannot be run.
    pub(crate) fn version(&self) -> Result<String> {
        output_of(self.command().arg("--version"))
    }

    /// A command of it, which does not outlive this process, whatever ends that.
    pub fn command(&self) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]);
        match self {
            Self::Installed(path) => {
                command.arg(path);
            }
            Self::Unpacked(root) => {
                // Its libraries are of a piece with its own loader, not with the host's.
                let libraries = root.join(LIBRARIES);
                command
                    .arg(libraries.join("ld-linux-x86-64.so.2"))
                    .arg("--library-path")
                    .arg(&libraries)
                    .arg(root.join("usr/bin").join(PROGRAM))
                    .env("QEMU_MODULE_DIR", libraries.join("qemu"));
                for folder in ["usr/share/qemu", "usr/share/seabios"] {
                    command.arg("-L").arg(root.join(folder));
                }
            }
        }
        command
    }
}

fn is_new_enough(text: &str) -> bool {
    version(text).is_some_and(|version| version >= MINIMUM)
}

/// Major and minor version in the first line of `--version`.
fn version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text
        .strip_prefix("QEMU emulator version ")?
        .split(|character: char| !character.is_ascii_digit());
    let mut next = || numbers.next()?.parse().ok();
    Some((next()?, next()?))
}

#[cfg(test)]
mod tests {
    use super::{MINIMUM, version};

    #[test]
    fn a_version_is_read_from_the_first_line() {
        let debian = "QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)\nCopyright";
        assert_eq!(version(debian), Some((7, 2)));
        assert_eq!(version("QEMU emulator version 10.2.0\n"), Some((10, 2)));
        assert_eq!(version("something else"), None);
        assert!(version("QEMU emulator version 11.0.50") >= Some(MINIMUM));
    }
}
