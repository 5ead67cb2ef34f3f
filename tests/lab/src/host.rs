//! Where the cases run: straight on the host, or in the lab.

use std::fs::File;

use crate::error::{LabError, Result};

/// Where a machine with a stock kernel can run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// On the host, whose KVM runs kernels natively.
    Host,
    /// In the lab: a Linux in a software CPU that has a hardware KVM.
    Lab,
}

impl Place {
    /// The place for this host. `CUDDY_LAB=host` or `CUDDY_LAB=lab` decides otherwise.
    ///
    /// # Errors
    ///
    /// When `CUDDY_LAB` has another value.
    pub fn detect() -> Result<Self> {
        match std::env::var("CUDDY_LAB").as_deref() {
            Err(_) | Ok("") => Ok(Self::of_host()),
            Ok("host") => Ok(Self::Host),
            Ok("lab") => Ok(Self::Lab),
            Ok(other) => Err(LabError::Unusable(format!(
                "CUDDY_LAB is {other:?}; it can be `host` or `lab`"
            ))),
        }
    }

    /// A hardware KVM needs the CPU's virtualisation, which a software KVM's host does not show.
    fn of_host() -> Self {
        let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        if has_virtualisation(&cpu) && has_kvm() {
            Self::Host
        } else {
            Self::Lab
        }
    }
}

/// Whether this process may use a KVM of the host, of whatever kind.
pub(crate) fn has_kvm() -> bool {
    File::options()
        .read(true)
        .write(true)
        .open("/dev/kvm")
        .is_ok()
}

fn has_virtualisation(cpuinfo: &str) -> bool {
    cpuinfo
        .lines()
        .filter(|line| line.starts_with("flags"))
        .flat_map(str::split_whitespace)
        .any(|flag| flag == "vmx" || flag == "svm")
}

#[cfg(test)]
mod tests {
    use super::has_virtualisation;

    #[test]
    fn only_the_flag_itself_counts() {
        assert!(has_virtualisation(
            "model name\t: x\nflags\t\t: fpu svm nx\n"
        ));
        assert!(has_virtualisation("flags\t\t: fpu vmx\n"));
        assert!(!has_virtualisation("flags\t\t: fpu svm_lock vmx_ept\n"));
        assert!(!has_virtualisation("model name\t: vmx\nbugs: svm\n"));
    }
}
