//! /dev/kvm: is it there, may it be opened, and if not, what to do.

use std::io;

use serde::Serialize;

use super::processor::{Processor, Virtualization};

/// How far one gets with /dev/kvm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum KvmAccess {
    /// It can be opened.
    Open,
    /// It is not there.
    Missing,
    /// It is there and may not be opened.
    Denied,
    /// Something else is wrong with it.
    Failed,
}

impl KvmAccess {
    pub(super) fn from_error(error: &io::Error) -> Self {
        // ENODEV and ENXIO: the node is there and no module answers for it.
        match (error.kind(), error.raw_os_error()) {
            (io::ErrorKind::NotFound, _) | (_, Some(libc::ENODEV | libc::ENXIO)) => Self::Missing,
            (io::ErrorKind::PermissionDenied, _) | (_, Some(libc::EPERM)) => Self::Denied,
            _ => Self::Failed,
        }
    }
}

/// Where this process runs, as far as a remedy depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Surroundings {
    /// Whether it is in a container.
    pub(super) container: bool,
    /// Whether the module that serves /dev/kvm is loaded.
    pub(super) module_loaded: bool,
    /// Whether the group that owns /dev/kvm is called kvm, as on most distributions.
    pub(super) group_kvm: bool,
}

/// What to do about `access`; None if nothing.
pub(super) fn remedy(
    access: KvmAccess,
    processor: &Processor,
    surroundings: Surroundings,
) -> Option<String> {
    let vendor_module = match processor.virtualization {
        Virtualization::Vmx => "kvm_intel",
        Virtualization::Svm => "kvm_amd",
        Virtualization::None if processor.is_amd => "kvm_amd",
        Virtualization::None => "kvm_intel",
    };
    let remedy = match access {
        KvmAccess::Open => return None,
        KvmAccess::Missing if surroundings.module_loaded && surroundings.container => {
            "give the container the device: start it with --device /dev/kvm".to_owned()
        }
        KvmAccess::Missing if processor.virtualization != Virtualization::None => {
            let mut text = format!("load the module with 'modprobe {vendor_module}'");
            if surroundings.container {
                text.push_str(" on the host, and start the container with --device /dev/kvm");
            } else {
                text.push_str(
                    "; if that fails, 'dmesg' says why: often the firmware (BIOS) has it disabled",
                );
            }
            text
        }
        KvmAccess::Missing if processor.is_virtual => {
            "this host is a virtual machine without nested virtualisation: turn that on in its \
             hypervisor, or use a cloud's bare-metal or nested-virtualisation type"
                .to_owned()
        }
        KvmAccess::Missing => {
            let setting = if processor.is_amd {
                "SVM (AMD-V)"
            } else {
                "VT-x (Intel Virtualization Technology)"
            };
            format!("turn on {setting} in the firmware (BIOS), then 'modprobe {vendor_module}'")
        }
        KvmAccess::Denied if surroundings.container => {
            "start the container with --device /dev/kvm, and with a user who may open it".to_owned()
        }
        KvmAccess::Denied if surroundings.group_kvm => {
            "join the group: 'sudo usermod -aG kvm $USER', then log in again".to_owned()
        }
        KvmAccess::Denied => {
            "let yourself in: 'sudo setfacl -m u:$USER:rw /dev/kvm' until the next boot".to_owned()
        }
        KvmAccess::Failed => {
            format!(
                "reload the module: 'modprobe -r {vendor_module} && modprobe {vendor_module}'; 'dmesg' may say why"
            )
        }
    };
    Some(remedy)
}

#[cfg(test)]
mod tests;
