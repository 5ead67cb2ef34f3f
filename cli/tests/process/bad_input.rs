//! Each bad input: one line that says where, what and what to do, its exit status, nothing left behind.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::time::Duration;

use super::command::{cuddy, finish, run, until};
use super::guest::{Kernel, elf_at, idle};

/// Every name in `directory` and every network interface.
fn everything(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> = [directory, Path::new("/sys/class/net")]
        .iter()
        .flat_map(|directory| fs::read_dir(directory).unwrap())
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.starts_with("cuddybusy"))
        .collect();
    names.sort();
    names
}

/// What `output` says, if it says it as it should.
fn lines(output: &std::process::Output) -> Vec<String> {
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    let lines: Vec<_> = text.lines().map(str::to_owned).collect();
    assert!(!lines.is_empty(), "nothing was said: {output:?}");
    for line in &lines {
        assert!(line.starts_with("cuddy: "), "{text}");
        assert!(line.matches(": ").count() >= 2, "where and what: {text}");
        for debug in ["Err(", "Some(", " { ", "Error(", "Os {"] {
            assert!(!line.contains(debug), "{text}");
        }
    }
    lines
}

/// Runs `cuddy` where a serial socket would be left if anything is, and expects one line with `parts`.
fn refused(kernel: &Kernel, arguments: &[&str], status: i32, parts: &[&str]) {
    let before = everything(kernel.directory.path());
    let socket = kernel.directory.path().join("serial");
    let serial = format!("--serial=socket={}", socket.display());
    let all = [arguments, &[&serial]].concat();
    let output = run(&all);
    let lines = lines(&output);
    assert_eq!(lines.len(), 1, "{lines:?}");
    for part in parts {
        assert!(lines[0].contains(part), "'{part}' is not in {lines:?}");
    }
    assert_eq!(output.status.code(), Some(status), "{lines:?}");
    assert!(output.stdout.is_empty());
    assert_eq!(everything(kernel.directory.path()), before);
}

fn machine_refused(arguments: &[&str], parts: &[&str]) {
    let kernel = Kernel::new(&idle());
    refused(&kernel, &kernel.arguments(arguments), 2, parts);
}

fn kernel_refused(content: &[u8], parts: &[&str]) {
    let kernel = Kernel::new(&idle());
    fs::write(&kernel.path, content).unwrap();
    refused(&kernel, &kernel.arguments(&[]), 2, parts);
}

#[test]
fn a_kernel_that_is_none() {
    let kernel = Kernel::new(&idle());
    refused(&kernel, &["run"], 2, &["kernel: there is none", "--kernel"]);
    let missing = ["run", "--kernel", "/nonexistent/vmlinuz"];
    refused(&kernel, &missing, 2, &["kernel: ", "/nonexistent/vmlinuz"]);
    let directory = ["run", "--kernel", "/proc"];
    refused(&kernel, &directory, 2, &["kernel: ", "directory"]);
    kernel_refused(
        b"#!/bin/sh\necho no kernel\n",
        &["kernel: ", "not a kernel"],
    );
    kernel_refused(b"", &["kernel: "]);
}

#[test]
fn a_kernel_that_is_cut_short() {
    let whole = elf_at(0x10_0000, &idle());
    kernel_refused(&whole[..40], &["kernel: "]);
    kernel_refused(&whole[..200], &["kernel: "]);
    let mut bzimage = vec![0; 0x400];
    bzimage[0x1f1] = 4;
    bzimage[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
    bzimage[0x202..0x206].copy_from_slice(b"HdrS");
    bzimage[0x206..0x208].copy_from_slice(&[0x0f, 0x02]);
    kernel_refused(&bzimage, &["kernel: "]);
}

#[test]
fn a_kernel_that_lies_outside_of_memory() {
    kernel_refused(&elf_at(0x4000_0000, &idle()), &["kernel", "memory"]);
}

#[test]
fn an_initrd_that_is_missing_or_does_not_fit() {
    machine_refused(
        &["--initrd=/nonexistent/initrd"],
        &["initrd: ", "/nonexistent/initrd"],
    );
    let kernel = Kernel::new(&idle());
    let initrd = kernel.directory.path().join("initrd");
    File::create(&initrd).unwrap().set_len(64 << 20).unwrap();
    let option = format!("--initrd={}", initrd.display());
    refused(
        &kernel,
        &kernel.arguments(&[&option]),
        2,
        &["initrd", "memory"],
    );
}

#[test]
fn too_little_memory_and_too_many_processors() {
    let kernel = Kernel::new(&idle());
    let path = kernel.path.to_str().unwrap();
    let run = |more: &str, parts: &[&str]| {
        refused(&kernel, &["run", "--kernel", path, more], 2, parts);
    };
    run(
        "--memory=1M",
        &["memory: ", "too little", "use at least 2M"],
    );
    run("--memory=lots", &["--memory 'lots': ", "is not a size"]);
    run("--memory=-1", &["--memory '-1': ", "is not a size"]);
    run("--cpus=0", &["cpus: 0 is out of range: use 1 to 255"]);
    run("--cpus=256", &["cpus: 256 is out of range: use 1 to 255"]);
    run(
        "--cpus=70000",
        &["cpus: '70000' is out of range: use 1 to 255"],
    );
    run("--cpus=-1", &["cpus: '-1' is out of range: use 1 to 255"]);
}

#[test]
fn a_command_line_that_is_too_long() {
    let text = "a".repeat(100_000);
    machine_refused(&[&format!("--cmdline={text}")], &["cmdline"]);
}

#[test]
fn a_disk_that_is_missing_locked_or_odd() {
    machine_refused(
        &["--disk=/nonexistent.img"],
        &["disk[0]: ", "/nonexistent.img"],
    );
    machine_refused(&["--disk=path=/proc"], &["disk[0]: ", "/proc"]);

    let kernel = Kernel::new(&idle());
    let image = kernel.directory.path().join("image");
    File::create(&image).unwrap().set_len(1000).unwrap();
    let option = format!("--disk={}", image.display());
    refused(
        &kernel,
        &kernel.arguments(&[&option]),
        2,
        &["disk[0]: ", "512"],
    );

    File::create(&image).unwrap().set_len(1024).unwrap();
    let mut holder = cuddy(&kernel.arguments(&[&option, "--serial=none"]))
        .spawn()
        .unwrap();
    let descriptors = format!("/proc/{}/fd", holder.id());
    until("the disk is open", || {
        fs::read_dir(&descriptors).is_ok_and(|mut entries| {
            entries
                .any(|entry| fs::read_link(entry.unwrap().path()).is_ok_and(|path| path == image))
        })
    });
    // It is locked right after it was opened.
    std::thread::sleep(Duration::from_millis(50));
    refused(&kernel, &kernel.arguments(&[&option]), 2, &["disk[0]: "]);
    holder.kill().unwrap();
    holder.wait().unwrap();
}

#[test]
fn a_tap_that_is_missing_or_busy() {
    machine_refused(&["--net=tap=cuddynone0"], &["net[0]: ", "cuddynone0"]);
    machine_refused(&["--net=a/b"], &["net[0]: ", "a/b"]);
    machine_refused(&["--net=tap0,mac=nonsense"], &["--net ", "mac: "]);

    let Ok(tun) = File::options().read(true).write(true).open("/dev/net/tun") else {
        eprintln!("/dev/net/tun cannot be opened: a busy interface is not tried");
        return;
    };
    let mut request = [0u8; 40];
    request[..10].copy_from_slice(b"cuddybusy0");
    // IFF_TAP | IFF_NO_PI, as for a virtual machine (linux/if_tun.h).
    request[16..18].copy_from_slice(&0x1002u16.to_ne_bytes());
    // SAFETY: the request is as long as an ifreq and lives through the call.
    let made = unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETIFF, request.as_mut_ptr()) };
    if made < 0 {
        eprintln!("this user may not make interfaces: a busy one is not tried");
        return;
    }
    machine_refused(&["--net=cuddybusy0"], &["net[0]: ", "cuddybusy0"]);
}

#[test]
fn a_file_that_may_not_be_read() {
    let kernel = Kernel::new(&idle());
    fs::set_permissions(kernel.directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(&kernel.path, fs::Permissions::from_mode(0o000)).unwrap();
    // A copy that somebody without rights may run, wherever the build is.
    let copy = kernel.directory.path().join("cuddy");
    // Made by another process: a descriptor of ours that writes it could be inherited by a process that
    // another test starts, and what is being written cannot be run.
    let copied = std::process::Command::new("cp")
        .arg(env!("CARGO_BIN_EXE_cuddy"))
        .arg(&copy)
        .status();
    assert!(copied.unwrap().success());
    let mut command = std::process::Command::new(&copy);
    command
        .args(kernel.arguments(&["--serial=none"]))
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped());
    if rustix::process::geteuid().is_root() {
        command.uid(65534).gid(65534);
    }
    let output = finish(command.spawn().unwrap());
    let lines = lines(&output);
    assert_eq!(output.status.code(), Some(2));
    assert!(lines[0].contains("kernel: "), "{lines:?}");
    assert!(lines[0].contains("ermission"), "{lines:?}");
}

#[test]
fn keys_that_are_unknown_or_come_twice() {
    machine_refused(
        &["--disk=path=a,pth=b"],
        &["--disk 'path=a,pth=b': unknown key 'pth': use path"],
    );
    machine_refused(
        &["--disk=path=a,path=b"],
        &["key 'path' is given twice: keep one"],
    );
    machine_refused(&["--memory=64M"], &["--memory: is given twice: keep one"]);
    machine_refused(
        &["--kernl=a"],
        &["--kernl: there is no such option: did you mean --kernel?"],
    );

    let kernel = Kernel::new(&idle());
    for (name, text, part) in [
        (
            "a.toml",
            "cpus = 1\ncpu-count = 1\n",
            "a.toml:2: unknown key 'cpu-count': use one of",
        ),
        (
            "b.toml",
            "cpus = 1\ncpus = 1\n",
            "b.toml:2: cpus: duplicate key: keep one",
        ),
        (
            "c.json",
            "{\n\"cpus\": 1,\n\"cpus\": 1}",
            "c.json:3: duplicate key 'cpus': keep one",
        ),
        (
            "d.json",
            "{\n\"disk\": [{\"pth\": 1}]}",
            "d.json:2: disk: unknown key 'pth': use one of",
        ),
    ] {
        let path = kernel.directory.path().join(name);
        fs::write(&path, text).unwrap();
        let option = format!("--config={}", path.display());
        refused(&kernel, &kernel.arguments(&[&option]), 2, &[part]);
    }
    let missing = kernel.arguments(&["--config=/nonexistent.toml"]);
    refused(
        &kernel,
        &missing,
        2,
        &["--config /nonexistent.toml: ", "name a TOML or JSON file"],
    );
}

#[test]
fn words_that_are_no_choice() {
    machine_refused(
        &["--on-crash=explode"],
        &["--on-crash: 'explode' is not a choice: use destroy"],
    );
    machine_refused(
        &["--irqchip=none"],
        &["--irqchip: 'none' is not a choice: use split or kernel"],
    );
    machine_refused(
        &["--log=verbose"],
        &["--log: 'verbose' is not a level: use off"],
    );
    machine_refused(&["--escape=q"], &["--escape: 'q' is not a key: use none"]);
    machine_refused(&["--cpu=host,-nonsense"], &["cpu: ", "nonsense"]);
    let output = run(&["run", "--serial=nowhere", "--kernel=k"]);
    assert!(lines(&output)[0].contains("--serial: 'nowhere' is no place"));
    let output = run(&["run", "--serial=file=/nonexistent/log", "--kernel=k"]);
    assert!(lines(&output)[0].contains("serial: cannot write '/nonexistent/log'"));
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn all_problems_are_told_at_once_a_line_each() {
    let output = run(&[
        "run",
        "--cpus=0",
        "--memory=1M",
        "--log=x\ny",
        "--disk=readonly=on",
    ]);
    let lines = lines(&output);
    assert_eq!(lines.len(), 5, "{lines:?}");
    assert_eq!(output.status.code(), Some(2));
    assert!(
        lines
            .iter()
            .any(|line| line.contains("'x\\ny' is not a level"))
    );
}

#[test]
fn a_kernel_that_is_bad_leaves_a_log_as_it_was() {
    let kernel = Kernel::new(&idle());
    let log = kernel.directory.path().join("log");
    let option = format!("--serial=file={}", log.display());
    let arguments = ["run", "--kernel", "/nonexistent", &option];
    assert_eq!(run(&arguments).status.code(), Some(2));
    assert!(!log.exists());
    fs::write(&log, b"yesterday's").unwrap();
    assert_eq!(run(&arguments).status.code(), Some(2));
    assert_eq!(fs::read(&log).unwrap(), b"yesterday's");
}

#[test]
fn a_socket_device_that_cannot_be() {
    machine_refused(
        &["--vsock=cid=2,socket=v"],
        &["vsock: cid 2 is reserved: use 3"],
    );
    machine_refused(
        &["--vsock=3"],
        &["--vsock '3': key 'socket' is missing: add socket=…"],
    );
    machine_refused(
        &["--vsock=3,socket=/nonexistent/v"],
        &["vsock: cannot listen on '/nonexistent/v'", "name a path"],
    );
    let kernel = Kernel::new(&idle());
    let path = kernel.directory.path().join("vsock");
    let option = format!("--vsock=3,socket={}", path.display());
    // The path is gone when something else is wrong.
    let no_tap = kernel.arguments(&[&option, "--net=tap=cuddynone"]);
    refused(&kernel, &no_tap, 2, &["net[0]: "]);
    let taken = UnixListener::bind(&path).unwrap();
    let arguments = kernel.arguments(&[&option]);
    refused(
        &kernel,
        &arguments,
        2,
        &[
            "vsock: another process listens on '",
            "': end it, or choose another path",
        ],
    );
    drop(taken);
    fs::remove_file(&path).unwrap();
    fs::write(&path, b"precious").unwrap();
    refused(
        &kernel,
        &arguments,
        2,
        &["vsock: '", "is there and is no socket: remove it"],
    );
    assert_eq!(fs::read(&path).unwrap(), b"precious");
}
