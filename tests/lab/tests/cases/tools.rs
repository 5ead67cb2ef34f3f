//! Programs of Debian's, from the disk of [`Assets::tools_disk`]: in a guest, and on this side.

use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::process::Command;

use cuddy_lab::{Assets, Machine};

use crate::setup::COMMAND_LIMIT;

/// The `--disk` option that gives the programs to a guest.
pub(crate) fn disk() -> String {
    let image = Assets::get().unwrap().tools_disk;
    format!("path={},readonly=on", image.display())
}

/// Makes the programs that are on the guest's disk `name` usable in its shell, as `tool PROGRAM ...`.
pub(crate) fn mount(machine: &mut Machine, name: &str) {
    let mount = format!(
        "mount -t ext4 -o ro /dev/{name} /mnt && \
         for folder in dev proc sys tmp; do mount -o bind /$folder /mnt/$folder; done"
    );
    machine.run(&mount, COMMAND_LIMIT).unwrap();
    let tool = "tool() { PATH=/usr/sbin:/usr/bin:/sbin:/bin chroot /mnt \"$@\"; }";
    machine.run(tool, COMMAND_LIMIT).unwrap();
}

/// Takes the programs away again.
pub(crate) fn unmount(machine: &mut Machine) {
    let unmount = "umount /mnt/dev /mnt/proc /mnt/sys /mnt/tmp /mnt";
    machine.run(unmount, COMMAND_LIMIT).unwrap();
}

/// The programs on this side, until this value goes.
#[derive(Debug)]
pub(crate) struct Tools {
    folder: tempfile::TempDir,
}

impl Tools {
    /// Mounts the disk.
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let image = Assets::get().unwrap().tools_disk;
        let options = match image.metadata().unwrap().file_type().is_block_device() {
            true => "ro",
            false => "ro,loop",
        };
        let mut mount = Command::new("mount");
        mount.args(["-t", "ext4", "-o", options]);
        succeed(mount.arg(&image).arg(folder.path()));
        Self { folder }
    }

    /// A command of `program`, with the libraries that it was packaged for.
    pub(crate) fn command(&self, program: &str) -> Command {
        let root = self.folder.path();
        let programs = ["usr/bin", "usr/sbin", "sbin"].map(|folder| root.join(folder));
        let program = programs.iter().map(|folder| folder.join(program));
        let libraries = ["lib", "usr/lib"].map(|folder| root.join(folder).join("x86_64-linux-gnu"));
        let loader = libraries[0].join("ld-linux-x86-64.so.2");
        let libraries = libraries.map(|folder| folder.display().to_string());
        let mut command = Command::new(loader);
        command
            .args(["--library-path", &libraries.join(":")])
            .arg(program.into_iter().find(|path| path.is_file()).unwrap());
        command
    }
}

impl Drop for Tools {
    fn drop(&mut self) {
        undo(Command::new("umount").arg(self.folder.path()));
    }
}

/// What `qemu-img check` says of the qcow2 image at `path`, which has to be sound. Clusters that are taken and
/// not used are no damage.
pub(crate) fn check_qcow2(tools: &Tools, path: &Path) -> String {
    let mut command = tools.command("qemu-img");
    let output = command
        .args(["check", "-f", "qcow2"])
        .arg(path)
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(matches!(output.status.code(), Some(0 | 3)), "{said}");
    said
}

/// Runs `command`, which has to succeed, and gives what it wrote.
pub(crate) fn succeed(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {errors}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Runs `command`, which takes away what a case made, and says so when it fails: the case may be failing already.
pub(crate) fn undo(command: &mut Command) {
    match command.status() {
        Ok(status) if status.success() => {}
        outcome => eprintln!("{command:?}: {outcome:?}"),
    }
}
