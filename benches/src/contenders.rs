//! The machine monitors, each with the words by which it runs a bare guest in 128 MiB with one vCPU and
//! its serial port on standard output.

use std::path::Path;
use std::process::Command;

use crate::launch::Input;
use crate::programs::Programs;

/// Memory of every guest, in MiB.
pub(crate) const MEMORY_MIB: u64 = 128;

const LIBRARY_PATH: &str = "LD_LIBRARY_PATH";

/// A machine monitor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Contender {
    /// The ioctls that cannot be left out.
    Bare,
    Cuddy,
    /// The same with transparent huge pages, for which QEMU always asks.
    CuddyHuge,
    Qemu,
    Alioth,
}

impl Contender {
    /// Those that are compared with each other.
    pub(crate) const ALL: [Self; 4] = [Self::Bare, Self::Cuddy, Self::Qemu, Self::Alioth];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare ioctls",
            Self::Cuddy => "cuddy",
            Self::CuddyHuge => "cuddy, huge pages",
            Self::Qemu => "QEMU microvm",
            Self::Alioth => "alioth",
        }
    }

    /// Whether the reset by which a guest ends its machine ends the process too.
    pub(crate) const fn ends(self) -> bool {
        !matches!(self, Self::Alioth)
    }

    /// What it has to read from. alioth starts with nothing but a terminal.
    pub(crate) const fn input(self) -> Input {
        match self {
            Self::Alioth => Input::Terminal,
            _ => Input::None,
        }
    }

    /// The command that runs `guest`.
    ///
    /// # Errors
    ///
    /// Why this contender is not there.
    pub(crate) fn command(
        self,
        programs: &Programs,
        guest: &Path,
        command_line: &str,
    ) -> Result<Command, String> {
        let memory = format!("{MEMORY_MIB}M");
        let mut command = match self {
            Self::Bare => {
                let mut command = Command::new(&programs.bare);
                command.arg(guest);
                command
            }
            Self::Cuddy => {
                let mut command = Command::new(&programs.cuddy);
                command.arg("run").arg("--kernel").arg(guest);
                command.args(["--memory", &memory, "--cmdline", command_line]);
                command
            }
            Self::CuddyHuge => {
                let mut command = Command::new(&programs.cuddy);
                command.arg("run").arg("--kernel").arg(guest);
                command.arg("--memory");
                command.arg(format!("size={memory},hugepages=transparent"));
                command.args(["--cmdline", command_line]);
                command
            }
            Self::Qemu => {
                let mut command = programs.qemu.as_ref().map_err(Clone::clone)?.command();
                // A software KVM takes no MSR for the architecture's capabilities. The keyboard
                // controller is how the guest resets, which ends the process.
                command
                    .args(["-M", "microvm", "-accel", "kvm"])
                    .args(["-cpu", "host,-arch-capabilities", "-device", "i8042"])
                    .args(["-nodefaults", "-no-user-config", "-display", "none"])
                    .args(["-serial", "stdio", "-no-reboot", "-m", &memory])
                    .args(["-append", command_line, "-kernel"])
                    .arg(guest);
                command
            }
            Self::Alioth => {
                let program = programs.alioth.as_ref().map_err(Clone::clone)?;
                let mut command = Command::new(program);
                command
                    .args(["boot", "--cpu", "count=1", "--memory"])
                    .arg(format!("size={memory}"))
                    .args(["--cmdline", command_line, "--pvh"])
                    .arg(guest);
                command
            }
        };
        // Cargo's own, in which the dynamic linker would look for everything first.
        if !command.get_envs().any(|(name, _)| name == LIBRARY_PATH) {
            command.env_remove(LIBRARY_PATH);
        }
        Ok(command)
    }
}
