//! Programs of Debian's, from the disk of [`Assets::tools_disk`], in a guest.

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
