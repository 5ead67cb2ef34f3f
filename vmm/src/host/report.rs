//! The report on a host: findings, each with its remedy if something is wrong, and the figures behind
//! them.

use std::fs;
use std::io;
use std::os::fd::FromRawFd;
use std::path::Path;

use arch::cpu_features::CpuModel;
use kvm_ioctls::Kvm;
use serde::Serialize;

use super::capabilities::{self, Capability};
use super::huge_pages::{self, HugePagePool};
use super::kvm_device::{self, KvmAccess, Surroundings};
use super::processor::{self, Processor, Virtualization};
use super::software::{has_software_kvm, without_costly_features};
use super::{Ring0Speed, speed, tun};

/// What a finding means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// As it should be.
    Ok,
    /// Something that some machines want is not there.
    Warning,
    /// No machine can start.
    Failure,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at, in a word or two.
    pub subject: String,
    /// Whether that is good.
    pub level: Level,
    /// What was found, in a line.
    pub found: String,
    /// What to do, in a line, where something is to be done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

/// What this host offers to virtual machines.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Report {
    /// Everything that was looked at, in the order in which to put it right.
    pub findings: Vec<Finding>,
    /// How far one gets with /dev/kvm.
    pub kvm: KvmAccess,
    /// The processor's virtualisation extension.
    pub virtualization: Virtualization,
    /// The measured speed of a guest's kernel.
    pub ring0_speed: Option<Ring0Speed>,
    /// The most vCPUs that KVM gives one machine.
    pub vcpus_max: Option<usize>,
    /// Reserved huge pages.
    pub huge_pages: Vec<HugePagePool>,
}

impl Report {
    /// Whether a machine can start on this host.
    pub fn can_start(&self) -> bool {
        self.findings
            .iter()
            .all(|finding| finding.level != Level::Failure)
    }

    fn add(&mut self, subject: &str, level: Level, found: String, remedy: Option<String>) {
        self.findings.push(Finding {
            subject: subject.to_owned(),
            level,
            found,
            remedy,
        });
    }
}

/// Why the guest that measures could not run.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProbeError {
    #[error("no memory for it")]
    Memory,
    #[error("KVM refuses: {0}")]
    Kvm(#[from] kvm_ioctls::Error),
    #[error("it stopped with {0}")]
    Exit(String),
}

/// Looks at this host. Takes some 20 ms, most of them for the speed.
pub fn report() -> Report {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let processor = processor::parse(&cpuinfo);
    let mut report = Report {
        findings: Vec::new(),
        kvm: KvmAccess::Open,
        virtualization: processor.virtualization,
        ring0_speed: None,
        vcpus_max: None,
        huge_pages: huge_pages::pools(Path::new("/sys/kernel/mm/hugepages")),
    };
    match open_kvm() {
        Ok(kvm) => {
            report.add("/dev/kvm", Level::Ok, "can be opened".to_owned(), None);
            look_at_kvm(&mut report, &kvm, &processor);
        }
        Err(error) => {
            report.kvm = KvmAccess::from_error(&error);
            let remedy = kvm_device::remedy(report.kvm, &processor, surroundings());
            report.add("/dev/kvm", Level::Failure, error.to_string(), remedy);
        }
    }
    look_at_huge_pages(&mut report);
    look_at_tun(&mut report);
    report
}

fn open_kvm() -> io::Result<Kvm> {
    let descriptor = Kvm::open_with_cloexec(true)
        .map_err(|error| io::Error::from_raw_os_error(error.errno()))?;
    // SAFETY: the descriptor was opened on the line above and has no other owner.
    Ok(unsafe { Kvm::from_raw_fd(descriptor) })
}

fn surroundings() -> Surroundings {
    let container = ["/.dockerenv", "/run/.containerenv"]
        .iter()
        .any(|path| Path::new(path).exists())
        || fs::read_to_string("/proc/1/environ").is_ok_and(|text| text.contains("container="));
    let group_kvm = fs::read_to_string("/etc/group")
        .is_ok_and(|groups| groups.lines().any(|line| line.starts_with("kvm:")));
    Surroundings {
        container,
        module_loaded: Path::new("/sys/module/kvm").exists(),
        group_kvm,
    }
}

fn look_at_kvm(report: &mut Report, kvm: &Kvm, processor: &Processor) {
    let version = kvm.get_api_version();
    let (level, remedy) = if version == capabilities::API_VERSION {
        (Level::Ok, None)
    } else {
        let remedy = "use a Linux kernel from 2.6.22 on".to_owned();
        (Level::Failure, Some(remedy))
    };
    report.add("API version", level, version.to_string(), remedy);
    for row in capabilities::REQUIRED {
        let remedy = "use a newer kernel, or a host with hardware virtualisation";
        look_at_capability(report, kvm, row, Level::Failure, remedy);
    }
    for row in capabilities::OPTIONAL {
        let remedy = "do without it, or use a newer kernel";
        look_at_capability(report, kvm, row, Level::Warning, remedy);
    }
    look_at_speed(report, kvm, processor);
    let vcpus_max = kvm.get_max_vcpus();
    report.vcpus_max = Some(vcpus_max);
    report.add("vCPUs", Level::Ok, format!("at most {vcpus_max}"), None);
    let (level, found, remedy) = if processor.tsc_is_steady {
        (Level::Ok, "ticks at one rate", None)
    } else {
        let remedy = "expect guests to use kvmclock rather than the TSC";
        (
            Level::Warning,
            "changes its rate or stops",
            Some(remedy.to_owned()),
        )
    };
    report.add("TSC", level, found.to_owned(), remedy);
}

fn look_at_capability(
    report: &mut Report,
    kvm: &Kvm,
    row: &Capability,
    absent: Level,
    remedy: &str,
) {
    if row.is_there(kvm) {
        report.add(row.name, Level::Ok, row.purpose.to_owned(), None);
    } else {
        let found = format!("is not there: {}", row.purpose);
        report.add(row.name, absent, found, Some(remedy.to_owned()));
    }
}

fn look_at_speed(report: &mut Report, kvm: &Kvm, processor: &Processor) {
    let extension = match processor.virtualization {
        Virtualization::Vmx => "Intel VT-x",
        Virtualization::Svm => "AMD-V",
        Virtualization::None => "no hardware extension in sight",
    };
    match speed::measure(kvm) {
        Ok(measured) => {
            report.ring0_speed = Some(measured);
            let tenths = measured.instructions_per_second / 100_000;
            let millions = format!("{}.{}", tenths / 10, tenths % 10);
            let tenths = measured.exit_nanoseconds.saturating_add(50) / 100;
            let exit = format!("{}.{}", tenths / 10, tenths % 10);
            let figure =
                format!("{extension}, {millions} million ring-0 instructions/s, {exit} us an exit");
            if measured.is_emulated() {
                let remedy = "expect guest kernels to be slow: use a host whose KVM has hardware \
                              virtualisation";
                report.add(
                    "virtualisation",
                    Level::Warning,
                    format!("software KVM: {figure}"),
                    Some(remedy.to_owned()),
                );
                tell_what_to_expect(report);
            } else {
                let found = format!("hardware KVM: {figure}");
                report.add("virtualisation", Level::Ok, found, None);
            }
        }
        Err(error) => report.add(
            "virtualisation",
            Level::Failure,
            format!("{extension}, and a guest of two instructions does not run: {error}"),
            Some("'dmesg' may say why: reload the KVM module, or restart the host".to_owned()),
        ),
    }
}

/// What runs how fast where KVM emulates ring 0.
fn tell_what_to_expect(report: &mut Report) {
    let mut row = |subject, level, found: &str, remedy: Option<&str>| {
        report.add(subject, level, found.to_owned(), remedy.map(str::to_owned));
    };
    row(
        "programs",
        Level::Ok,
        "run at full speed, and bare guests that stay at ring 3",
        None,
    );
    row(
        "tiny kernels",
        Level::Ok,
        "take seconds to their init",
        None,
    );
    row(
        "stock kernels",
        Level::Warning,
        "take minutes to their init, and their programs' system calls are slow",
        Some("use a tiny kernel, or a host with hardware virtualisation"),
    );
    // A slow hardware KVM hides nothing.
    if has_software_kvm() {
        let (_, hidden) = without_costly_features(CpuModel::default());
        row(
            "CPU features",
            Level::Warning,
            &format!("without {}, which is slow here", hidden.join(", ")),
            Some(&format!(
                "for guests to see it: --cpu host,+{}",
                hidden.join(",+")
            )),
        );
    }
}

fn look_at_huge_pages(report: &mut Report) {
    let setting = fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled");
    let (level, found, remedy) = match setting
        .as_deref()
        .ok()
        .and_then(huge_pages::transparent_mode)
    {
        Some(mode @ ("always" | "madvise")) => (Level::Ok, format!("transparent: {mode}"), None),
        mode => {
            let remedy = "echo madvise | sudo tee /sys/kernel/mm/transparent_hugepage/enabled";
            let mode = mode.unwrap_or("not in this kernel");
            (
                Level::Warning,
                format!("transparent: {mode}"),
                Some(remedy.to_owned()),
            )
        }
    };
    let reserved: Vec<_> = report
        .huge_pages
        .iter()
        .map(|pool| {
            let size = crate::config::ByteSize(pool.page_kib << 10);
            format!("; of {size}: {} free of {}", pool.free, pool.reserved)
        })
        .collect();
    let found = format!("{found}{}", reserved.concat());
    report.add("huge pages", level, found, remedy);
}

fn look_at_tun(report: &mut Report) {
    match tun::check(Path::new("/dev/net/tun")) {
        Ok(()) => report.add("/dev/net/tun", Level::Ok, "can be opened".to_owned(), None),
        Err(error) => {
            let remedy = tun::remedy(&error).to_owned();
            report.add(
                "/dev/net/tun",
                Level::Warning,
                error.to_string(),
                Some(remedy),
            );
        }
    }
}

#[cfg(test)]
mod tests;
