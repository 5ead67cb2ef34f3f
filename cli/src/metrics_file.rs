//! `--metrics FILE`: what a machine counted, for a scraper that reads files.
//!
//! The text is written to a file beside it, which then takes the place of `FILE`: whoever reads it finds the
//! old one or the new one, whole.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use vmm::Metrics;
use vmm::config::Problem;

/// A place that metrics can be written to.
#[derive(Debug)]
pub struct MetricsFile {
    path: PathBuf,
    beside: PathBuf,
}

impl MetricsFile {
    /// Makes sure that `path` can be written, and leaves nothing there.
    ///
    /// # Errors
    ///
    /// Why not.
    pub fn new(path: PathBuf) -> Result<Self, Problem> {
        match fs::metadata(&path) {
            // A device or a pipe would be replaced as well.
            Ok(metadata) if !metadata.is_file() => {
                let error = io::Error::other("is there and not a file");
                return Err(problem(&path, &error));
            }
            _ => {}
        }
        let Some(name) = path.file_name() else {
            return Err(problem(&path, &io::Error::other("has no file name")));
        };
        let mut beside = std::ffi::OsString::from(".");
        beside.push(name);
        beside.push(format!(".{}", std::process::id()));
        let beside = path.with_file_name(beside);
        let file = Self { path, beside };
        file.create()
            .and_then(|_| fs::remove_file(&file.beside))
            .map_err(|error| problem(&file.path, &error))?;
        Ok(file)
    }

    /// Puts `metrics` there.
    ///
    /// # Errors
    ///
    /// Why it could not be done; what was there before is then still there.
    pub fn write(self, metrics: &Metrics) -> Result<(), Problem> {
        let text = metrics.to_prometheus();
        self.create()
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .and_then(|()| fs::rename(&self.beside, &self.path))
            .map_err(|error| {
                // It may not have come into being.
                let _ = fs::remove_file(&self.beside);
                problem(&self.path, &error)
            })
    }

    fn create(&self) -> io::Result<File> {
        File::create_new(&self.beside)
    }
}

fn problem(path: &Path, error: &io::Error) -> Problem {
    Problem::new(
        format!("--metrics {}", path.display()),
        format_args!("{error}: name a file in a directory that may be written"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn none() -> Metrics {
        Metrics {
            machine: "box".to_owned(),
            vcpus: Vec::new(),
            vsock: None,
        }
    }

    #[test]
    fn a_file_is_replaced_whole_and_nothing_is_left_beside_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("metrics");
        fs::write(&path, "old").unwrap();
        let file = MetricsFile::new(path.clone()).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"old");
        file.write(&none()).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), none().to_prometheus());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_cannot_be_written_is_refused_in_one_line() {
        for path in [
            "/nonexistent/metrics",
            "/",
            "/dev/null",
            "/proc/metrics",
            "..",
        ] {
            let line = MetricsFile::new(path.into()).unwrap_err().to_string();
            assert!(line.starts_with(&format!("--metrics {path}: ")), "{line}");
            assert!(
                line.ends_with("in a directory that may be written"),
                "{line}"
            );
            assert_eq!(line.lines().count(), 1);
        }
    }
}
