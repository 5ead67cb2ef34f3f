//! The machine monitors, each with the words by which its guest gets the disk.

use std::path::PathBuf;
use std::process::Command;

use super::image::Setting;
use crate::contenders;
use crate::launch::Input;
use crate::programs::Programs;

/// Where QEMU's microvm has its virtio-mmio devices.
const QEMU_DEVICES: &str =
    "virtio.base=0xfeb00000 virtio.stride=0x200 virtio.count=24 virtio.gsi=5";

/// A machine monitor with one of its engines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Contender {
    Cuddy,
    QemuUring,
    QemuThreads,
    QemuNative,
    Alioth,
}

impl Contender {
    pub(super) const ALL: [Self; 5] = [
        Self::Cuddy,
        Self::QemuUring,
        Self::QemuThreads,
        Self::QemuNative,
        Self::Alioth,
    ];
    pub(super) const QEMU: [Self; 3] = [Self::QemuUring, Self::QemuThreads, Self::QemuNative];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Cuddy => "cuddy",
            Self::QemuUring => "QEMU io_uring",
            Self::QemuThreads => "QEMU threads",
            Self::QemuNative => "QEMU native",
            Self::Alioth => "alioth",
        }
    }

    /// Whether it has such disks.
    pub(super) fn knows(self, setting: Setting) -> bool {
        match self {
            Self::Cuddy | Self::QemuUring | Self::QemuThreads => true,
            // Linux's own asynchronous I/O waits for the page cache.
            Self::QemuNative => !setting.in_memory,
            // Raw images, one queue, and the page cache.
            Self::Alioth => setting.format_is_raw() && setting.queues == 1 && setting.in_memory,
        }
    }

    pub(super) const fn input(self) -> Input {
        self.monitor().input()
    }

    const fn monitor(self) -> contenders::Contender {
        match self {
            Self::Cuddy => contenders::Contender::CuddyHuge,
            Self::QemuUring | Self::QemuThreads | Self::QemuNative => contenders::Contender::Qemu,
            Self::Alioth => contenders::Contender::Alioth,
        }
    }

    /// The command that runs the guest `suite` with the disk `image` and `words` on its command line.
    ///
    /// # Errors
    ///
    /// Why this contender is not there.
    pub(super) fn command(
        self,
        programs: &Programs,
        setting: Setting,
        image: PathBuf,
        words: &str,
    ) -> Result<Command, String> {
        let image = image.display();
        let queues = setting.queues;
        let format = if setting.format_is_raw() {
            "raw"
        } else {
            "qcow2"
        };
        let words = match Self::QEMU.contains(&self) {
            true => format!("{words} {QEMU_DEVICES}"),
            false => words.to_owned(),
        };
        let mut command = self.monitor().command(programs, &programs.suite, &words)?;
        let aio = match self {
            Self::Cuddy => {
                let cache = if setting.in_memory {
                    "writeback"
                } else {
                    "none"
                };
                command.arg("--disk").arg(format!(
                    "path={image},format={format},cache={cache},queues={queues}"
                ));
                return Ok(command);
            }
            Self::Alioth => {
                command
                    .arg("--blk")
                    .arg(format!("file,path={image},api=iouring"));
                return Ok(command);
            }
            Self::QemuUring => "io_uring",
            Self::QemuThreads => "threads",
            Self::QemuNative => "native",
        };
        let direct = if setting.in_memory { "off" } else { "on" };
        command
            .args(["-name", "guest,debug-threads=on"])
            .args(["-global", "virtio-mmio.force-legacy=false"])
            .args(["-object", "iothread,id=worker", "-blockdev"])
            .arg(format!(
                "driver=file,node-name=file,filename={image},aio={aio},cache.direct={direct}"
            ))
            .arg("-blockdev")
            .arg(format!(
                "driver={format},node-name=disk,file=file,cache.direct={direct}"
            ))
            .arg("-device")
            .arg(format!(
                "virtio-blk-device,drive=disk,iothread=worker,num-queues={queues}"
            ));
        Ok(command)
    }
}
