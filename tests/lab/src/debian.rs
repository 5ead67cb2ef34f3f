//! Debian's packages, through Debian's own clients. Packages are downloaded and unpacked aside; nothing
//! is installed on the host.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cache::Cache;
use crate::error::{Context, LabError, Result};
use crate::process::output_of;

/// Unpacks `package` without its dependencies in the folder `into`, which is made.
///
/// # Errors
///
/// When the package cannot be found, downloaded or unpacked.
pub(crate) fn unpack(cache: &Cache, package: &str, into: &Path) -> Result<()> {
    let downloads = tempfile::tempdir_in(cache.root())
        .context(|| format!("making a folder in {}", cache.root().display()))?;
    with_package_lists(cache, || {
        output_of(
            apt("apt-get")
                .args(["--quiet", "download", package])
                .current_dir(downloads.path()),
        )
    })?;
    unpack_archives(downloads.path(), into)
}

/// Unpacks `package` with those of its dependencies that the host does not have installed.
///
/// # Errors
///
/// When a package cannot be found, downloaded or unpacked.
pub(crate) fn unpack_with_dependencies(cache: &Cache, package: &str, into: &Path) -> Result<()> {
    eprintln!("cuddy-lab: {package} is not installed, fetching it into the cache");
    let downloads = tempfile::tempdir_in(cache.root())
        .context(|| format!("making a folder in {}", cache.root().display()))?;
    let partial = downloads.path().join("partial");
    fs::create_dir(&partial).context(|| format!("making {}", partial.display()))?;
    let archives = format!("Dir::Cache::archives={}", downloads.path().display());
    with_package_lists(cache, || {
        output_of(
            apt("apt-get")
                .args(["--quiet", "--yes", "--no-install-recommends"])
                .args(["--download-only", "-o", "Debug::NoLocking=true"])
                .args(["-o", &archives, "install", package]),
        )
    })?;
    unpack_archives(downloads.path(), into)
}

/// Unpacks `package` of `release`, or of its backports, with everything that it depends on, so that it
/// needs nothing of the host.
///
/// # Errors
///
/// When a package cannot be found, downloaded or unpacked.
pub(crate) fn unpack_of_release(
    cache: &Cache,
    release: &str,
    package: &str,
    into: &Path,
) -> Result<()> {
    let folder = tempfile::tempdir_in(cache.root())
        .context(|| format!("making a folder in {}", cache.root().display()))?;
    let configuration = apt_configuration(folder.path(), release)?;
    let run = |arguments: &[&str]| {
        output_of(
            apt("apt-get")
                .args(arguments)
                .env("APT_CONFIG", &configuration),
        )
    };
    run(&["--quiet", "update"])?;
    let backports = format!("{release}-backports");
    run(&[
        "--quiet",
        "--yes",
        "--download-only",
        "--target-release",
        &backports,
        "install",
        package,
    ])?;
    unpack_archives(&folder.path().join("archives"), into)
}

/// A configuration of apt in `folder` that knows `release` alone, and that nothing is installed.
fn apt_configuration(folder: &Path, release: &str) -> Result<PathBuf> {
    let write = |name: &str, text: String| -> Result<PathBuf> {
        let path = folder.join(name);
        fs::write(&path, text).context(|| format!("writing {}", path.display()))?;
        Ok(path)
    };
    for name in ["lists/partial", "archives/partial"] {
        let path = folder.join(name);
        fs::create_dir_all(&path).context(|| format!("making {}", path.display()))?;
    }
    let status = write("status", String::new())?;
    let origin = "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] \
                  http://deb.debian.org/debian";
    let sources = write(
        "sources.list",
        format!("{origin} {release} main\n{origin} {release}-backports main\n"),
    )?;
    let folder = folder.display();
    write(
        "apt.conf",
        format!(
            "Dir::Etc::sourcelist \"{sources}\";\n\
             Dir::Etc::sourceparts \"/dev/null\";\n\
             Dir::Etc::preferences \"/dev/null\";\n\
             Dir::Etc::preferencesparts \"/dev/null\";\n\
             Dir::State \"{folder}\";\n\
             Dir::State::status \"{status}\";\n\
             Dir::Cache \"{folder}\";\n\
             APT::Install-Recommends \"false\";\n",
            sources = sources.display(),
            status = status.display(),
        ),
    )
}

/// The first dependency of `package`: for a metapackage, the package that it stands for.
///
/// # Errors
///
/// When the package is not known.
pub(crate) fn first_dependency(cache: &Cache, package: &str) -> Result<String> {
    with_package_lists(cache, || {
        let answer = output_of(apt("apt-cache").args(["depends", package]))?;
        answer
            .lines()
            .find_map(|line| line.trim().strip_prefix("Depends: "))
            .map(str::to_owned)
            .ok_or_else(|| LabError::Unusable(format!("Debian's {package} depends on nothing")))
    })
}

/// The version of `package` that would be fetched.
///
/// # Errors
///
/// When the package is not known.
pub(crate) fn version(cache: &Cache, package: &str) -> Result<String> {
    with_package_lists(cache, || {
        let answer = output_of(apt("apt-cache").args(["policy", package]))?;
        answer
            .lines()
            .find_map(|line| line.trim().strip_prefix("Candidate: "))
            .filter(|version| *version != "(none)")
            .map(str::to_owned)
            .ok_or_else(|| LabError::Unusable(format!("Debian has no package {package}")))
    })
}

/// The code name of the host's Debian, such as `bookworm`.
///
/// # Errors
///
/// When the host does not say.
pub(crate) fn host_release() -> Result<String> {
    let path = "/etc/os-release";
    let text = fs::read_to_string(path).context(|| format!("reading {path}"))?;
    text.lines()
        .find_map(|line| line.strip_prefix("VERSION_CODENAME="))
        .map(|name| name.trim_matches('"').to_owned())
        .ok_or_else(|| LabError::Unusable(format!("{path} names no release; the lab needs Debian")))
}

/// Does `work`; where it fails, for want of package lists or because they are old, updates the lists
/// and does it once more.
fn with_package_lists<T>(cache: &Cache, work: impl Fn() -> Result<T>) -> Result<T> {
    let _lock = cache.lock("apt")?;
    work().or_else(|_| {
        eprintln!("cuddy-lab: updating the lists of Debian's packages");
        output_of(apt("apt-get").args(["--quiet", "update"]))?;
        work()
    })
}

fn unpack_archives(downloads: &Path, into: &Path) -> Result<()> {
    fs::create_dir_all(into).context(|| format!("making {}", into.display()))?;
    for archive in archives_in(downloads)? {
        output_of(Command::new("dpkg").arg("-x").arg(&archive).arg(into))?;
    }
    Ok(())
}

fn archives_in(folder: &Path) -> Result<Vec<PathBuf>> {
    let what = || format!("reading {}", folder.display());
    let mut archives = Vec::new();
    for entry in fs::read_dir(folder).context(what)? {
        let path = entry.context(what)?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            archives.push(path);
        }
    }
    Ok(archives)
}

/// One of apt's programs, with answers in English. The downloads go into folders that apt's own
/// unprivileged user cannot write, so it is told to stay who it is.
fn apt(program: &str) -> Command {
    let mut command = Command::new(program);
    command
        .env("LC_ALL", "C")
        .env("DEBIAN_FRONTEND", "noninteractive")
        .args(["-o", "APT::Sandbox::User=root"]);
    command
}
