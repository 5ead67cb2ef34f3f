//! What /proc/cpuinfo says of the processor's help for virtual machines.

use serde::Serialize;

/// The processor's virtualisation extension, as this host shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Virtualization {
    /// Intel VT-x.
    Vmx,
    /// AMD-V.
    Svm,
    /// None: off in the firmware, or hidden by the virtual machine or cloud that this host is.
    None,
}

/// What was read of the first processor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Processor {
    pub(super) virtualization: Virtualization,
    /// Whether it says that it is itself a virtual one.
    pub(super) is_virtual: bool,
    pub(super) is_amd: bool,
    /// Whether the TSC ticks at one rate, in every power state.
    pub(super) tsc_is_steady: bool,
}

/// Reads the text of /proc/cpuinfo.
pub(super) fn parse(cpuinfo: &str) -> Processor {
    let field = |name: &str| {
        cpuinfo
            .lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(key, _)| key.trim() == name)
            .map_or("", |(_, value)| value.trim())
    };
    let flags = field("flags");
    let has = |name| flags.split_ascii_whitespace().any(|flag| flag == name);
    Processor {
        virtualization: if has("vmx") {
            Virtualization::Vmx
        } else if has("svm") {
            Virtualization::Svm
        } else {
            Virtualization::None
        },
        is_virtual: has("hypervisor"),
        is_amd: matches!(field("vendor_id"), "AuthenticAMD" | "HygonGenuine"),
        tsc_is_steady: has("constant_tsc") && has("nonstop_tsc"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extensions_are_whole_words() {
        let amd = parse(
            "processor\t: 0\nvendor_id\t: AuthenticAMD\nflags\t\t: fpu svm constant_tsc nonstop_tsc\n",
        );
        assert_eq!(amd.virtualization, Virtualization::Svm);
        assert!(amd.is_amd && amd.tsc_is_steady && !amd.is_virtual);
        let intel = parse("vendor_id\t: GenuineIntel\nflags\t\t: fpu vmx hypervisor\n");
        assert_eq!(intel.virtualization, Virtualization::Vmx);
        assert!(intel.is_virtual && !intel.is_amd && !intel.tsc_is_steady);
        let none = parse("flags\t\t: svm_lock vmx_x\n");
        assert_eq!(none.virtualization, Virtualization::None);
    }
}
