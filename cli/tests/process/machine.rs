//! Machines to their end: outcomes, exit statuses, and where the serial port goes.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::Stdio;

use proptest::prelude::*;
use rustix::process::Signal;

use super::command::{cuddy, finish, run, send, until, wait};
use super::guest::{
    Kernel, chatter, crash, echo, idle, load_decimal, power_off, reset, say, triple_fault,
};

#[test]
fn the_exit_status_tells_how_the_guest_ended() {
    for (end, status) in [
        (power_off(), 0),
        (reset(), 0),
        (crash(), 3),
        (triple_fault(), 3),
    ] {
        let kernel = Kernel::new(&[say("hello\n"), end].concat());
        for irqchip in ["split", "kernel"] {
            let output = run(&kernel.arguments(&["--irqchip", irqchip]));
            let errors = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(status), "{irqchip}: {errors}");
            assert_eq!(output.stdout, b"hello\n", "{irqchip}: {errors}");
            if status == 0 {
                assert_eq!(errors, "");
            } else {
                assert!(errors.starts_with("cuddy: guest: crashed: "), "{errors}");
                let block = errors.lines().skip(1);
                assert!(block.clone().all(|line| line.starts_with("  ")), "{errors}");
                // A vCPU that shuts down has its registers told, unless KVM has reset it.
                assert!(matches!(block.count(), 0 | 8), "{errors}");
            }
        }
    }
}

#[test]
fn an_instruction_that_nobody_carries_out_is_told_with_the_registers() {
    // A number of ten bytes out of a device: nothing emulates that, on no host.
    let kernel = Kernel::new(&[say("up\n"), load_decimal(0xd000_0000), power_off()].concat());
    for (completion, reason) in [
        ("on", "neither KVM nor cuddy carries out this instruction"),
        (
            "off",
            "KVM does not emulate this instruction, and completion is off",
        ),
    ] {
        let output = run(&kernel.arguments(&["--completion", completion]));
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(3), "{errors}");
        assert_eq!(output.stdout, b"up\n");
        let mut lines = errors.lines();
        let line = lines.next().unwrap();
        assert!(line.contains("vCPU 0 at 0x1001"), "{line}");
        assert!(line.contains("fbld tbyte ptr"), "{line}");
        assert!(line.contains("(df 25 00 00 00 d0): "), "{line}");
        assert!(line.contains(reason), "{line}");
        let block: Vec<_> = lines.collect();
        assert_eq!(block.len(), 8, "{errors}");
        assert!(block[0].starts_with("  rip 00000000001001"), "{errors}");
        assert!(block[7].contains("cs "), "{errors}");
    }
}

#[test]
fn what_was_counted_is_in_a_file_when_the_machine_has_ended() {
    let kernel = Kernel::new(&[say("12345"), power_off()].concat());
    let path = kernel.directory.path().join("metrics.prom");
    let option = format!("--metrics={}", path.display());
    let output = run(&kernel.arguments(&[&option, "--name=a box"]));
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let text = fs::read_to_string(&path).unwrap();
    let sample = "cuddy_vcpu_exits_total{machine=\"a box\",vcpu=\"0\",reason=\"port_write\"} ";
    let count = text.lines().find_map(|line| line.strip_prefix(sample));
    // Five bytes and the power-off.
    assert_eq!(count, Some("6"), "{text}");

    let output = run(&kernel.arguments(&["--metrics=/nonexistent/metrics"]));
    assert_eq!(output.status.code(), Some(2));
    assert!(output.stdout.is_empty(), "nothing was started");
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(
        errors.starts_with("cuddy: --metrics /nonexistent/metrics: "),
        "{errors}"
    );
    assert_eq!(errors.lines().count(), 1, "{errors}");
}

#[test]
fn a_feature_that_is_hidden_unasked_is_told_once() {
    let flags = fs::read_to_string("/proc/cpuinfo").unwrap();
    let has = |name: &str| flags.split_ascii_whitespace().any(|flag| flag == name);
    let is_software = has("hypervisor") && !has("vmx") && !has("svm");
    let kernel = Kernel::new(&[say("up\n"), reset()].concat());
    for (cpu, log, lines) in [
        ("--cpu=host", "--log=warn", usize::from(is_software)),
        ("--cpu=host", "--log=error", 0),
        ("--cpu=host,+cx16", "--log=warn", 0),
        ("--cpu=host,-cx16", "--log=warn", 0),
    ] {
        let output = run(&kernel.arguments(&[cpu, log]));
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(0), "{errors}");
        assert_eq!(errors.lines().count(), lines, "{cpu} {log}: {errors}");
        assert_eq!(
            errors.matches("--cpu host,+cx16").count(),
            lines,
            "{errors}"
        );
    }
}

#[test]
fn signals_end_a_machine_with_their_number() {
    for signal in [Signal::TERM, Signal::INT, Signal::HUP, Signal::QUIT] {
        let kernel = Kernel::new(&[say("!"), idle()].concat());
        let mut child = cuddy(&kernel.arguments(&[])).spawn().unwrap();
        let mut mark = [0];
        child
            .stdout
            .as_mut()
            .unwrap()
            .read_exact(&mut mark)
            .unwrap();
        send(&child, signal);
        assert_eq!(wait(&mut child).code(), Some(128 + signal.as_raw()));
    }
}

#[test]
fn input_goes_to_the_guest_and_its_end_ends_nothing() {
    let kernel = Kernel::new(&echo());
    let mut child = cuddy(&kernel.arguments(&[]))
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let mut answer = [0; 5];
    for _ in 0..2 {
        input.write_all(b"\x03\x1d ab").unwrap();
        let output = child.stdout.as_mut().unwrap();
        output.read_exact(&mut answer).unwrap();
        assert_eq!(
            &answer, b"\x03\x1d ab",
            "no key is special without a terminal"
        );
    }
    drop(input);
    std::thread::sleep(std::time::Duration::from_millis(50));
    assert!(child.try_wait().unwrap().is_none());
    send(&child, Signal::TERM);
    assert_eq!(wait(&mut child).code(), Some(143));
}

#[test]
fn a_closed_or_full_pipe_neither_kills_nor_wedges_a_machine() {
    let kernel = Kernel::new(&chatter());
    let mut child = cuddy(&kernel.arguments(&[])).spawn().unwrap();
    let mut output = child.stdout.take().unwrap();
    output.read_exact(&mut [0; 16]).unwrap();
    // Nobody reads for a while, and the guest waits; then nobody is left.
    std::thread::sleep(std::time::Duration::from_millis(100));
    drop(output);
    std::thread::sleep(std::time::Duration::from_millis(100));
    assert!(child.try_wait().unwrap().is_none());
    send(&child, Signal::TERM);
    let output = finish(child);
    assert_eq!(output.status.code(), Some(143));
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(errors.matches("is lost").count(), 1, "{errors}");
}

#[test]
fn a_machine_ends_although_nobody_reads_its_output() {
    let kernel = Kernel::new(&chatter());
    let mut child = cuddy(&kernel.arguments(&[])).spawn().unwrap();
    let mut output = child.stdout.take().unwrap();
    output.read_exact(&mut [0; 16]).unwrap();
    // More than a pipe holds, in time; the pipe stays open.
    let size = rustix::pipe::fcntl_setpipe_size(&output, 4096).unwrap_or(0);
    assert!(size <= 4096);
    std::thread::sleep(std::time::Duration::from_millis(300));
    send(&child, Signal::TERM);
    assert_eq!(wait(&mut child).code(), Some(143));
    drop(output);
}

#[test]
fn the_serial_port_goes_to_a_file_or_a_socket() {
    let kernel = Kernel::new(&[say("hello\n"), power_off()].concat());
    let log = kernel.directory.path().join("log");
    let output = run(&kernel.arguments(&[&format!("--serial=file={}", log.display())]));
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(fs::read(&log).unwrap(), b"hello\n");
    assert!(output.stdout.is_empty());

    let kernel = Kernel::new(&echo());
    let socket = kernel.directory.path().join("serial");
    let option = format!("--serial=socket={}", socket.display());
    let mut child = cuddy(&kernel.arguments(&[&option])).spawn().unwrap();
    until("the socket is there", || socket.exists());
    let mut client = UnixStream::connect(&socket).unwrap();
    client.write_all(b"ping").unwrap();
    let mut answer = [0; 4];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"ping");
    send(&child, Signal::TERM);
    assert_eq!(wait(&mut child).code(), Some(143));
    assert!(!socket.exists());
}

#[test]
fn a_pseudo_terminal_is_named_and_answers() {
    let kernel = Kernel::new(&echo());
    let mut child = cuddy(&kernel.arguments(&["--serial=pty"])).spawn().unwrap();
    let mut said = String::new();
    let errors = child.stderr.as_mut().unwrap();
    while !said.ends_with('\n') {
        let mut byte = [0];
        errors.read_exact(&mut byte).unwrap();
        said.push(byte[0].into());
    }
    let path = said.trim_end().strip_prefix("cuddy: serial: ").unwrap();
    let mut user = fs::File::options()
        .read(true)
        .write(true)
        .open(path)
        .unwrap();
    user.write_all(b"ping").unwrap();
    let mut answer = [0; 4];
    user.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"ping");
    send(&child, Signal::INT);
    assert_eq!(wait(&mut child).code(), Some(130));
}

#[test]
fn a_restart_starts_the_guest_again_on_the_same_console() {
    let kernel = Kernel::new(&[say("up\n"), reset()].concat());
    let mut child = cuddy(&kernel.arguments(&["--on-reboot=restart"]))
        .spawn()
        .unwrap();
    let mut twice = [0; 6];
    child
        .stdout
        .as_mut()
        .unwrap()
        .read_exact(&mut twice)
        .unwrap();
    assert_eq!(&twice, b"up\nup\n");
    send(&child, Signal::TERM);
    assert_eq!(finish(child).status.code(), Some(143));
}

#[test]
fn a_preserved_machine_waits_to_be_ended() {
    let kernel = Kernel::new(&[say("!"), crash()].concat());
    let mut child = cuddy(&kernel.arguments(&["--on-crash=preserve"]))
        .spawn()
        .unwrap();
    child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(200));
    assert!(child.try_wait().unwrap().is_none());
    send(&child, Signal::TERM);
    assert_eq!(
        finish(child).status.code(),
        Some(3),
        "its guest had crashed"
    );
}

#[test]
fn the_log_is_as_it_was_asked_for() {
    let kernel = Kernel::new(&power_off());
    let output = run(&kernel.arguments(&["--log=debug", "--log-format=json"]));
    assert_eq!(output.status.code(), Some(0));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.lines().count() > 0);
    for line in text.lines() {
        let value: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(value["level"].is_string(), "{line}");
        assert!(value["target"].is_string(), "{line}");
    }
}

#[test]
fn check_agrees_with_the_machines_of_these_tests() {
    let output = run(&["check"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(
        text.ends_with("A machine can start on this host.\n"),
        "{text}"
    );
    let output = run(&["check", "--json"]);
    let value: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(value["can-start"], true);
    assert!(value["ring0-speed"]["instructions-per-second"].as_u64() > Some(0));
}

fn dry_run(arguments: &[&str]) -> String {
    let output = run(&[&["run", "--dry-run"], arguments].concat());
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_dry_run_prints_what_config_reads_back(
        cpus in 1u8..,
        megabytes in 2u32..100_000,
        name in "[a-zA-Z0-9 =,\"'\\\\é-]{1,12}",
        cmdline in "[ -~]{0,40}",
        disks in proptest::collection::vec("[a-z/\"=][a-z/\"= ]{0,12}", 0..3),
        readonly: bool,
        serial in "stdio|none|pty|file=[a-z ]{1,8}|socket=[a-z=]{1,8}",
        action in "destroy|restart|preserve",
    ) {
        let readonly = if readonly { "on" } else { "off" };
        let mut options = vec![
            "--kernel=k".to_owned(),
            format!("--cpus={cpus}"),
            format!("--memory={megabytes}M,shared={readonly}"),
            format!("--name={name}"),
            format!("--cmdline={cmdline}"),
            format!("--serial={serial}"),
            format!("--on-reboot={action}"),
            "--net=tap0,mac=52:54:00:00:00:01,mtu=9000".to_owned(),
        ];
        options.extend(disks.iter().map(|path| format!("--disk=path={path},readonly={readonly}")));
        let options: Vec<_> = options.iter().map(String::as_str).collect();
        let first = dry_run(&options);
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("machine.toml");
        fs::write(&file, &first).unwrap();
        let again = dry_run(&["--config", file.to_str().unwrap()]);
        prop_assert_eq!(first, again);
    }
}
