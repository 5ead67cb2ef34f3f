//! The files that a program of the host needs to run elsewhere: its shared libraries.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::{LabError, Result};
use crate::process::output_of;

/// The shared libraries of `program` and its dynamic loader, at their own paths. None for a static
/// program.
///
/// # Errors
///
/// When `program` is not a program of this host, or a library is missing.
pub(crate) fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let listing = match output_of(Command::new("ldd").arg(program).env("LC_ALL", "C")) {
        Err(LabError::Command { stderr, .. }) if stderr.contains("not a dynamic executable") => {
            return Ok(Vec::new());
        }
        other => other?,
    };
    parse(&listing)
}

/// Lines are `name => path (address)`, `path (address)` for the loader, or `name (address)` for the
/// kernel's own.
fn parse(listing: &str) -> Result<Vec<PathBuf>> {
    let mut libraries = Vec::new();
    for line in listing.lines() {
        if line.contains("=> not found") {
            return Err(LabError::Unusable(format!(
                "a shared library is missing: {}",
                line.trim()
            )));
        }
        let place = line.rsplit("=> ").next().unwrap_or(line);
        let path = place.split(" (").next().unwrap_or(place).trim();
        if path.starts_with('/') {
            libraries.push(PathBuf::from(path));
        }
    }
    Ok(libraries)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::parse;

    #[test]
    fn libraries_and_loader_are_found() {
        let listing = "\tlinux-vdso.so.1 (0x00007ffd)\n\
            \tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f12)\n\
            \t/lib64/ld-linux-x86-64.so.2 (0x00007f13)\n";
        assert_eq!(
            parse(listing).unwrap(),
            [
                PathBuf::from("/lib/x86_64-linux-gnu/libc.so.6"),
                PathBuf::from("/lib64/ld-linux-x86-64.so.2")
            ]
        );
        assert_eq!(
            parse("\tstatically linked\n").unwrap(),
            [""; 0].map(PathBuf::from)
        );
    }

    #[test]
    fn a_missing_library_is_named() {
        let error = parse("\tlibz.so.1 => not found\n").unwrap_err();
        assert!(error.to_string().contains("libz.so.1"), "{error}");
    }
}
