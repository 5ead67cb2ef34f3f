//! Why a TAP interface cannot be used: each a line that says what, where and what to do.

use std::io;

use super::name::InterfaceName;

/// Why a TAP interface cannot be opened, created or set up.
#[derive(Debug, thiserror::Error)]
pub enum TapError {
    /// The name cannot be that of an interface.
    #[error("tap name {name:?} is not valid: {reason}")]
    InvalidName {
        /// What was asked for.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The name is longer than the kernel's limit.
    #[error("tap name {name:?} has {length} bytes: an interface name has at most 15")]
    NameTooLong {
        /// What was asked for.
        name: String,
        /// Its length in bytes.
        length: usize,
    },
    /// The host has no TUN/TAP driver.
    #[error("/dev/net/tun is missing: load the driver with `modprobe tun`")]
    NoTunDevice,
    /// The device node is closed to this user.
    #[error(
        "no permission to open /dev/net/tun: it needs to be readable and writable, as by `chmod 0666 /dev/net/tun`"
    )]
    TunDevicePermission,
    /// The device node cannot be opened for another reason.
    #[error("cannot open /dev/net/tun: {0}")]
    TunDevice(#[source] io::Error),
    /// There is no interface of that name, and creating one was not asked for.
    #[error(
        "no tap interface {name}: create it with `ip tuntap add dev {name} mode tap user $USER`"
    )]
    NotFound {
        /// What was asked for.
        name: String,
    },
    /// A new interface was asked for, and there is one of that name.
    #[error("interface {name} exists already: choose another name, or open the existing one")]
    AlreadyExists {
        /// What was asked for.
        name: String,
    },
    /// Another process, or another device of this machine, has it open.
    #[error("tap {name} is busy: another process or device has it open")]
    Busy {
        /// What was asked for.
        name: String,
    },
    /// The interface belongs to someone else.
    #[error(
        "no permission to open tap {name}: it needs CAP_NET_ADMIN or a tap of your own, \
         made with `ip tuntap add dev {name} mode tap user $USER`"
    )]
    Permission {
        /// What was asked for.
        name: String,
    },
    /// This user cannot create interfaces.
    #[error(
        "no permission to create tap {name}: it needs CAP_NET_ADMIN, \
         or someone who has it runs `ip tuntap add dev {name} mode tap user $USER`"
    )]
    CreatePermission {
        /// What was asked for.
        name: String,
    },
    /// An interface of another kind.
    #[error("interface {name} is not a tap: `ip -d link show {name}` says what it is")]
    NotATap {
        /// What was asked for.
        name: String,
    },
    /// A tap that was made for several queues, which other processes could share unseen.
    #[error("tap {name} has multiple queues: make it anew without `multi_queue`")]
    MultiQueue {
        /// What was asked for.
        name: String,
    },
    /// What else the host answers.
    #[error("cannot {action} tap {name}: {source}")]
    Host {
        /// What was tried.
        action: &'static str,
        /// The interface.
        name: String,
        /// The host's answer.
        source: io::Error,
    },
}

impl TapError {
    pub(super) fn not_found(name: &InterfaceName) -> Self {
        Self::NotFound {
            name: name.to_string(),
        }
    }

    pub(super) fn already_exists(name: &InterfaceName) -> Self {
        Self::AlreadyExists {
            name: name.to_string(),
        }
    }

    pub(super) fn busy(name: &InterfaceName) -> Self {
        Self::Busy {
            name: name.to_string(),
        }
    }

    pub(super) fn permission(name: &InterfaceName, existed: bool) -> Self {
        let name = name.to_string();
        if existed {
            Self::Permission { name }
        } else {
            Self::CreatePermission { name }
        }
    }

    pub(super) fn not_a_tap(name: &InterfaceName) -> Self {
        Self::NotATap {
            name: name.to_string(),
        }
    }

    pub(super) fn multi_queue(name: &InterfaceName) -> Self {
        Self::MultiQueue {
            name: name.to_string(),
        }
    }

    pub(super) fn host(action: &'static str, name: &InterfaceName, source: io::Error) -> Self {
        Self::Host {
            action,
            name: name.to_string(),
            source,
        }
    }
}
