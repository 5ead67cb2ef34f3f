//! A file that takes the output of a serial port.
//!
//! A regular file is made when it is opened, so that a bad path is known in time, and emptied by the
//! first byte. One that was made and never written to is removed again: a machine that cannot start
//! leaves nothing behind, and takes nothing away.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use super::output::{Destination, WhenFull};

/// Opens `path`, which may also be a device or a named pipe.
pub(super) fn open(path: &Path) -> io::Result<Destination> {
    let mut options = File::options();
    options.write(true);
    let (file, was_made) = match options.clone().create_new(true).open(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            // Opened to be read as well, a named pipe is not waited for until somebody reads it.
            let is_pipe = fs::metadata(path)?.file_type().is_fifo();
            (options.read(is_pipe).open(path)?, false)
        }
        result => (result?, true),
    };
    if !file.metadata()?.is_file() {
        return Destination::descriptor(&file, WhenFull::Wait);
    }
    Ok(Destination::Writer(Box::new(LogFile {
        file,
        path: path.to_owned(),
        was_made,
        was_written: false,
    })))
}

struct LogFile {
    file: File,
    path: PathBuf,
    was_made: bool,
    was_written: bool,
}

impl Write for LogFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !self.was_written {
            self.file.set_len(0)?;
            self.was_written = true;
        }
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for LogFile {
    fn drop(&mut self) {
        if self.was_made && !self.was_written {
            // Whoever removed it before has done no harm.
            let _ = fs::remove_file(&self.path);
        }
    }
}
