//! Whether TAP interfaces can be used: /dev/net/tun.

use std::fs::File;
use std::io;
use std::path::Path;

/// Opens the device, and closes it again: that makes no interface.
pub(super) fn check(path: &Path) -> io::Result<()> {
    File::options().read(true).write(true).open(path).map(drop)
}

/// What to do about `error`.
pub(super) fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => {
            "load the module with 'modprobe tun'; in a container, start it with --device /dev/net/tun"
        }
        io::ErrorKind::PermissionDenied => {
            "make it readable and writable for all, as it is on most hosts: 'chmod 666 /dev/net/tun'"
        }
        _ => "load the module with 'modprobe tun'",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_device_has_a_remedy() {
        let error = check(Path::new("/nonexistent/tun")).unwrap_err();
        assert!(remedy(&error).contains("modprobe tun"));
        assert!(check(Path::new("/dev/null")).is_ok());
    }
}
