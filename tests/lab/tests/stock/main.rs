//! Debian's kernel, unmodified, on this host's KVM, whatever kind that is: `cargo xtask test --stock`.
//!
//! On a software KVM the first test takes minutes, and the second shows what the kernel meets under a
//! monitor that finishes no instruction for KVM.

use std::time::{Duration, Instant};

use cuddy_lab::{Assets, Cache, Machine, MachineOptions, Place, Qemu, tiny_initrd};

/// From the start of the machine to its init: a software KVM on a machine that does other work too.
const BOOT_LIMIT: Duration = Duration::from_secs(2 * 60 * 60);
/// From its init's last command to the end of the machine.
const END_LIMIT: Duration = Duration::from_secs(10 * 60);
/// QEMU gives up after some minutes.
const QEMU_LIMIT: Duration = Duration::from_secs(20 * 60);

const MEMORY_MIB: u32 = 256;
/// What init writes, which no kernel does.
const WORD: &str = "init-was-reached";

fn cmdline() -> String {
    format!("console=ttyS0 panic=-1 nowatchdog CUDDY_COMMAND=\"echo {WORD}\"")
}

#[test]
fn the_stock_kernel_reaches_its_init() {
    let assets = Assets::get().unwrap();
    // One without /sbin/modprobe, which the kernel would call before init, and be slow from there on.
    let initrd = tiny_initrd(&Cache::open().unwrap()).unwrap();
    let mut options = MachineOptions::new(&assets.cuddy, &assets.vmlinuz, &initrd);
    options.memory_mib = MEMORY_MIB;
    options.cmdline = cmdline();
    options.more = vec!["--log", "info"];
    let start = Instant::now();
    let mut machine = options.start().unwrap();
    // The kernel shows its command line first, and the word in it.
    machine
        .console
        .expect("Run /init as init process", BOOT_LIMIT)
        .unwrap();
    println!("init after {:.1} s", start.elapsed().as_secs_f32());
    machine
        .console
        .expect(&format!("\n{WORD}"), BOOT_LIMIT)
        .unwrap();
    println!(
        "its first command after {:.1} s",
        start.elapsed().as_secs_f32()
    );
    let status = machine.wait(END_LIMIT).unwrap();
    println!("{}", machine.messages().trim_end());
    assert_eq!(status.code(), Some(0));
}

#[test]
fn qemu_ends_where_a_software_kvm_gives_up() {
    if Place::detect().unwrap() == Place::Host {
        println!("KVM is a hardware one here: QEMU boots the kernel too");
        return;
    }
    let assets = Assets::get().unwrap();
    let mut command = Qemu::find(&Cache::open().unwrap()).unwrap().command();
    command
        .args(["-accel", "kvm", "-cpu", "host", "-M", "q35"])
        .args([
            "-m",
            &format!("{MEMORY_MIB}M"),
            "-nodefaults",
            "-display",
            "none",
        ])
        .args(["-no-reboot", "-serial", "stdio"])
        .arg("-kernel")
        .arg(&assets.vmlinuz)
        .arg("-initrd")
        .arg(&assets.initrd)
        .args(["-append", &cmdline()]);
    let mut machine = Machine::start(&mut command).unwrap();
    let start = Instant::now();
    while !machine.messages().contains("KVM internal error") {
        assert!(start.elapsed() < QEMU_LIMIT, "{}", machine.messages());
        assert!(!machine.has_ended().unwrap(), "{}", machine.messages());
        std::thread::sleep(Duration::from_millis(100));
    }
    let seconds = start.elapsed().as_secs_f32();
    let console = machine.console.transcript();
    println!(
        "QEMU after {seconds:.1} s:\n{}",
        machine.messages().trim_end()
    );
    println!("the console until then:\n{}", console.trim_end());
    assert!(!console.contains("Run /init as init process"));
}
