//! The tiny kernel: Debian's `linux-source-6.1`, unpatched, built with the configuration in
//! `resources/guest-kernel`, for guests on a KVM that emulates ring 0.
//!
//! The compiler is the host's. What else the build needs and the host has not is unpacked in the cache
//! from Debian's packages; nothing is installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use crate::cache::{Cache, digest};
use crate::debian;
use crate::error::{Context, LabError, Result};
use crate::process::{installed, output_of};

/// The configuration: options on top of `allnoconfig`.
const CONFIG: &str = include_str!("../../../resources/guest-kernel/tiny.config");
const PACKAGE: &str = "linux-source-6.1";
/// Part of the kernel's name in the cache: another one for each change of what is built here.
const REVISION: &[u8] = b"1";

/// Most of the sources that no configuration of ours compiles; Kconfig files among them stay.
const LEFT_OUT: &[&str] = &[
    "*/drivers/gpu/*.[ch]",
    "*/drivers/media/*.[ch]",
    "*/drivers/net/ethernet/*.[ch]",
    "*/drivers/net/wireless/*.[ch]",
    "*/drivers/staging/*.[ch]",
    "*/sound/*.[ch]",
    "*/tools/testing/*",
    "*/arch/*/boot/dts/*",
    "*.rst",
];

/// The built kernel in the cache.
#[derive(Debug, Clone)]
pub struct GuestKernel {
    folder: PathBuf,
}

impl GuestKernel {
    /// The command line for it on a KVM that emulates ring 0; it is as good elsewhere.
    ///
    /// Cleared are features of the processor whose instructions KVM leaves to the monitor (POPCNT), and
    /// string instructions on bytes, which are emulated byte by byte. Read-only kernel memory would cost a
    /// walk over the page tables.
    pub const CMDLINE: &str = "console=ttyS0 quiet panic=-1 rodata=off clearcpuid=popcnt,erms,fsrm";

    /// Fetches the source and builds the kernel, or finds it in the cache. A build takes some
    /// minutes on two cores.
    ///
    /// # Errors
    ///
    /// When there is no C compiler, a package cannot be fetched, or the build fails.
    pub fn build(cache: &Cache) -> Result<Self> {
        let version = debian::version(cache, PACKAGE)?;
        let recipe = digest(&[CONFIG.as_bytes(), version.as_bytes(), REVISION]);
        let folder = cache.entry(&format!("guest-kernel-{recipe}"), |new| {
            if installed("gcc").is_none() {
                return Err(LabError::Unusable(
                    "no C compiler for the tiny kernel: install Debian's package gcc".to_owned(),
                ));
            }
            eprintln!("cuddy-lab: building the tiny kernel from {PACKAGE} {version}");
            let work = tempfile::tempdir_in(cache.root())
                .context(|| format!("making a folder in {}", cache.root().display()))?;
            let source = unpack_source(cache, work.path())?;
            let build = Build {
                source: &source,
                objects: &work.path().join("build"),
                tools: &tools(cache)?,
            };
            build.run(new)
        })?;
        Ok(Self { folder })
    }

    /// The kernel as ELF file, with a PVH note and without symbols.
    pub fn vmlinux(&self) -> PathBuf {
        self.folder.join("vmlinux")
    }
}

/// Unpacks the source under `folder` and gives its path.
fn unpack_source(cache: &Cache, folder: &Path) -> Result<PathBuf> {
    let package = folder.join("package");
    debian::unpack(cache, PACKAGE, &package)?;
    let archive = package.join(format!("usr/src/{PACKAGE}.tar.xz"));
    let mut tar = Command::new("tar");
    tar.arg("--extract")
        .arg("--file")
        .arg(&archive)
        .arg("--directory")
        .arg(folder);
    tar.args(
        LEFT_OUT
            .iter()
            .map(|pattern| format!("--exclude={pattern}")),
    );
    output_of(&mut tar)?;
    fs::remove_dir_all(&package).context(|| format!("removing {}", package.display()))?;
    Ok(folder.join(PACKAGE))
}

/// Unpacks what the build needs and the host has not; the folder is empty where nothing is missing.
fn tools(cache: &Cache) -> Result<PathBuf> {
    let has_libelf = Path::new("/usr/include/gelf.h").exists();
    let mut missing: Vec<_> = ["make", "bison", "flex", "bc"]
        .into_iter()
        .filter(|name| installed(name).is_none())
        .collect();
    if !has_libelf {
        missing.push("libelf-dev");
    }
    cache.entry(
        &format!("guest-kernel-tools-{}", missing.join("-")),
        |new| {
            fs::create_dir_all(new).context(|| format!("making {}", new.display()))?;
            missing
                .iter()
                .try_for_each(|package| debian::unpack_with_dependencies(cache, package, new))
        },
    )
}

/// A build of the kernel in a folder of its own.
#[derive(Debug)]
struct Build<'a> {
    source: &'a Path,
    objects: &'a Path,
    tools: &'a Path,
}

impl Build<'_> {
    /// Builds the kernel and puts it into the new folder `into`.
    fn run(&self, into: &Path) -> Result<()> {
        fs::create_dir_all(self.objects)
            .context(|| format!("making {}", self.objects.display()))?;
        let options = self.objects.join("tiny.config");
        fs::write(&options, CONFIG).context(|| format!("writing {}", options.display()))?;
        let mut configure = self.command();
        configure
            .arg(format!("KCONFIG_ALLCONFIG={}", options.display()))
            .arg("allnoconfig");
        output_of(&mut configure)?;
        let resolved = self.objects.join(".config");
        let resolved =
            fs::read_to_string(&resolved).context(|| format!("reading {}", resolved.display()))?;
        check_options(CONFIG, &resolved)?;

        let jobs = thread::available_parallelism().map_or(1, usize::from);
        output_of(self.command().arg(format!("--jobs={jobs}")).arg("vmlinux"))?;
        fs::create_dir(into).context(|| format!("making {}", into.display()))?;
        for (file, name) in [("System.map", "System.map"), (".config", "config")] {
            let from = self.objects.join(file);
            fs::copy(&from, into.join(name)).context(|| format!("copying {}", from.display()))?;
        }
        output_of(
            Command::new("strip")
                .arg("-o")
                .arg(into.join("vmlinux"))
                .arg(self.objects.join("vmlinux")),
        )?;
        Ok(())
    }

    fn command(&self) -> Command {
        let programs = self.tools.join("usr/bin");
        let libraries = self.tools.join("usr/lib/x86_64-linux-gnu");
        let headers = self.tools.join("usr/include");
        let mut search = vec![programs.clone()];
        if let Some(path) = std::env::var_os("PATH") {
            search.extend(std::env::split_paths(&path));
        }
        let mut command = Command::new("make");
        command
            .arg("--silent")
            .arg(format!("--directory={}", self.source.display()))
            .arg(format!("O={}", self.objects.display()))
            // The same source gives the same kernel, wherever it is built.
            .args(["KBUILD_BUILD_USER=cuddy", "KBUILD_BUILD_HOST=cuddy"])
            .arg("KBUILD_BUILD_TIMESTAMP=1970-01-01")
            // The kernel's own checker of objects is a program of the host. The library by the name of what
            // is installed: the link of the development package may point into another folder.
            .arg(format!("HOSTCFLAGS=-I{}", headers.display()))
            .arg(format!("LIBELF_FLAGS=-I{}", headers.display()))
            .arg(format!(
                "LIBELF_LIBS=-L{} -l:libelf.so.1",
                libraries.display()
            ))
            .env("LC_ALL", "C")
            .env("LD_LIBRARY_PATH", &libraries);
        if let Ok(search) = std::env::join_paths(search) {
            command.env("PATH", search);
        }
        // Unpacked programs look for their own files where they would have been installed.
        if programs.join("m4").exists() {
            command.env("M4", programs.join("m4"));
        }
        if programs.join("bison").exists() {
            command.env("BISON_PKGDATADIR", self.tools.join("usr/share/bison"));
        }
        command
    }
}

/// Kconfig drops silently what it does not know or what depends on something else.
fn check_options(wanted: &str, resolved: &str) -> Result<()> {
    let is_met = |line: &str| match line.strip_prefix("# ") {
        None => line.is_empty() || resolved.lines().any(|other| other == line),
        Some(comment) => match comment.strip_suffix(" is not set") {
            Some(name) => !resolved.lines().any(|other| {
                other
                    .strip_prefix(name)
                    .is_some_and(|rest| rest.starts_with('='))
            }),
            None => true,
        },
    };
    let unmet: Vec<_> = wanted.lines().filter(|line| !is_met(line)).collect();
    if unmet.is_empty() {
        Ok(())
    } else {
        Err(LabError::Unusable(format!(
            "the source of the tiny kernel does not take: {}",
            unmet.join(", ")
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::check_options;

    #[test]
    fn options_that_are_taken_are_told_from_others() {
        let resolved = "CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_C=8\nCONFIG_DD=y\n";
        let wanted = "# A comment.\n\nCONFIG_A=y\n# CONFIG_B is not set\n# CONFIG_D is not set\n";
        check_options(wanted, resolved).unwrap();
        for unmet in ["CONFIG_B=y", "CONFIG_C=4", "# CONFIG_A is not set"] {
            let error = check_options(unmet, resolved).unwrap_err().to_string();
            assert!(error.ends_with(unmet), "{error}");
        }
    }
}
