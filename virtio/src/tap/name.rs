//! Names of network interfaces (net/core/dev.c of Linux, `dev_valid_name`).

use std::ffi::{CString, c_char};
use std::fmt;
use std::io;

use super::TapError;

/// Bytes in a name, without the zero that ends it: `IFNAMSIZ` less one.
const MAX_BYTES: usize = 15;

/// A name that an interface can have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct InterfaceName(CString);

impl InterfaceName {
    pub(super) fn new(name: &str) -> Result<Self, TapError> {
        let invalid = |reason| TapError::InvalidName {
            name: name.to_owned(),
            reason,
        };
        if name.is_empty() {
            return Err(invalid("it is empty"));
        }
        if name.len() > MAX_BYTES {
            return Err(TapError::NameTooLong {
                name: name.to_owned(),
                length: name.len(),
            });
        }
        if name == "." || name == ".." {
            return Err(invalid("it names a folder"));
        }
        if name
            .chars()
            .any(|c| c == '/' || c == ':' || c.is_whitespace() || c.is_control())
        {
            return Err(invalid(
                "it has a slash, a colon, a space or a control character in it",
            ));
        }
        CString::new(name)
            .map(Self)
            .map_err(|_| invalid("it has a zero byte in it"))
    }

    /// The interface's index in the calling thread's network namespace; `None` if there is none of
    /// this name.
    pub(super) fn index(&self) -> io::Result<Option<u32>> {
        // SAFETY: the pointer is to a string that ends with a zero and that lives through the call.
        let index = unsafe { libc::if_nametoindex(self.0.as_ptr()) };
        if index != 0 {
            return Ok(Some(index));
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::ENODEV | libc::ENXIO) => Ok(None),
            _ => Err(error),
        }
    }

    /// The name as `struct ifreq` has it.
    pub(super) fn to_ifreq_name(&self) -> [c_char; libc::IFNAMSIZ] {
        let mut name = [0; libc::IFNAMSIZ];
        for (to, from) in name.iter_mut().zip(self.0.as_bytes()) {
            *to = from.cast_signed();
        }
        name
    }

    /// The name that the kernel put into a `struct ifreq`.
    pub(super) fn from_ifreq_name(name: &[c_char; libc::IFNAMSIZ]) -> Option<Self> {
        let bytes: Vec<u8> = name
            .iter()
            .take_while(|byte| **byte != 0)
            .map(|byte| byte.cast_unsigned())
            .collect();
        CString::new(bytes).ok().map(Self)
    }
}

impl fmt::Display for InterfaceName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0.to_string_lossy())
    }
}
