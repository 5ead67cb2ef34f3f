//! A disk of the host that fails where and when a case wants it to: device-mapper over a file.

use std::fs::File;
use std::io::Write;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::tools::{Tools, succeed, undo};

/// A block device that passes everything on to a file, but for the sectors that fail. It goes with this value.
#[derive(Debug)]
pub(crate) struct FailingDisk<'a> {
    tools: &'a Tools,
    name: &'static str,
    file: String,
    sectors: u64,
}

impl<'a> FailingDisk<'a> {
    /// A disk over all of `file` that fails nowhere.
    pub(crate) fn new(tools: &'a Tools, name: &'static str, file: &Path) -> Self {
        let sectors = File::open(file).unwrap().metadata().unwrap().len() / 512;
        let device = succeed(Command::new("losetup").arg("-f"));
        succeed(Command::new("losetup").arg(&device).arg(file));
        let disk = Self {
            tools,
            name,
            file: device,
            sectors,
        };
        disk.set_table("create", 0..0);
        disk
    }

    /// Its device.
    pub(crate) fn path(&self) -> PathBuf {
        Path::new("/dev/mapper").join(self.name)
    }

    /// From now on each request to one of these sectors fails, none to others.
    pub(crate) fn fail(&self, sectors: Range<u64>) {
        succeed(&mut self.dmsetup(&["suspend", self.name]));
        self.set_table("load", sectors);
        succeed(&mut self.dmsetup(&["resume", self.name]));
    }

    fn set_table(&self, verb: &str, bad: Range<u64>) {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(self.table(bad).as_bytes()).unwrap();
        let mut command = self.dmsetup(&[verb, self.name]);
        succeed(command.arg(file.path()));
    }

    /// Targets of device-mapper (Documentation/admin-guide/device-mapper), a line each.
    fn table(&self, bad: Range<u64>) -> String {
        let linear = |sectors: Range<u64>| {
            let (start, length) = (sectors.start, sectors.end - sectors.start);
            (length > 0).then(|| format!("{start} {length} linear {} {start}\n", self.file))
        };
        let length = bad.end - bad.start;
        let error = (length > 0).then(|| format!("{} {length} error\n", bad.start));
        let targets = [linear(0..bad.start), error, linear(bad.end..self.sectors)];
        targets.into_iter().flatten().collect()
    }

    fn dmsetup(&self, words: &[&str]) -> Command {
        let mut command = self.tools.command("dmsetup");
        // There may be no udev, and nobody waits for it.
        command.env("DM_DISABLE_UDEV", "1").args(words);
        command
    }
}

impl Drop for FailingDisk<'_> {
    fn drop(&mut self) {
        undo(&mut self.dmsetup(&["remove", self.name]));
        undo(Command::new("losetup").args(["-d", &self.file]));
    }
}
