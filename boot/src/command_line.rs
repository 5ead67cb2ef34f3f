//! The kernel's command line: checked and put in its place (Linux, Documentation/arch/x86/boot.rst, "The
//! Kernel Command Line").

use arch::layout;

/// What a stock kernel is told when the user says nothing: the console on the first serial port, and a
/// reboot at once after a panic, so that a machine whose kernel died ends or starts anew instead of hanging.
/// How to reboot need not be said: Linux takes the reset register of the ACPI tables first.
pub const DEFAULT_CMDLINE: &str = "console=ttyS0 panic=-1";

/// `COMMAND_LINE_SIZE` of Linux on x86 without its terminating zero; for kernels that do not say.
pub(crate) const LINUX_MAXIMUM_BYTES: usize = 2047;

/// Why a command line cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say what the fields are")]
pub enum CommandLineError {
    /// It would end there.
    #[error(
        "the kernel command line has a zero byte at offset {offset}, where it would end: remove it"
    )]
    ZeroByte { offset: usize },
    /// The kernel would cut it off.
    #[error(
        "the kernel command line has {length_bytes} bytes, but this kernel takes at most {maximum_bytes}: shorten it"
    )]
    TooLong {
        length_bytes: usize,
        maximum_bytes: usize,
    },
}

/// The bytes for guest memory at [`layout::COMMAND_LINE`], with the terminating zero. `kernel_maximum_bytes`
/// is what the kernel says that it takes, without the zero.
pub(crate) fn terminated(
    command_line: &str,
    kernel_maximum_bytes: usize,
) -> Result<Vec<u8>, CommandLineError> {
    let room = layout::COMMAND_LINE
        .end
        .saturating_sub(layout::COMMAND_LINE.start)
        .saturating_sub(1);
    let maximum_bytes = usize::try_from(room)
        .unwrap_or(usize::MAX)
        .min(kernel_maximum_bytes);
    if let Some(offset) = command_line.bytes().position(|byte| byte == 0) {
        return Err(CommandLineError::ZeroByte { offset });
    }
    if command_line.len() > maximum_bytes {
        return Err(CommandLineError::TooLong {
            length_bytes: command_line.len(),
            maximum_bytes,
        });
    }
    let mut bytes = Vec::with_capacity(command_line.len().saturating_add(1));
    bytes.extend_from_slice(command_line.as_bytes());
    bytes.push(0);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::{CommandLineError, DEFAULT_CMDLINE, terminated};

    #[test]
    fn a_zero_ends_the_line() {
        assert_eq!(terminated("quiet", 2047), Ok(b"quiet\0".to_vec()));
        assert_eq!(terminated("", 2047), Ok(vec![0]));
        assert!(terminated(DEFAULT_CMDLINE, 255).is_ok());
    }

    #[test]
    fn what_the_kernel_would_not_see_is_refused() {
        assert_eq!(
            terminated("a\0b", 2047),
            Err(CommandLineError::ZeroByte { offset: 1 })
        );
        let line = "x".repeat(2048);
        assert_eq!(
            terminated(&line, 2047),
            Err(CommandLineError::TooLong {
                length_bytes: 2048,
                maximum_bytes: 2047
            })
        );
        assert!(terminated(&line[1..], 2047).is_ok());
        // However much the kernel takes, there is a limit to the place.
        assert!(terminated(&"x".repeat(0x1_0000), usize::MAX).is_err());
        assert!(terminated(&"x".repeat(0xffff), usize::MAX).is_ok());
    }
}
