use std::collections::BTreeSet;

use clap::CommandFactory;
use vmm::config::{
    Action, ByteSize, HugePages, IrqchipMode, MachineConfig, MemoryConfig, SerialConfig, Transport,
    Unpack, VsockConfig,
};

use super::*;

fn run_options(arguments: &[&str]) -> RunOptions {
    let all = [&["cuddy", "run"], arguments].concat();
    match Arguments::try_parse_from(all).unwrap().command {
        Command::Run(run) => run.machine,
        other => panic!("{other:?}"),
    }
}

fn problems(arguments: &[&str]) -> Vec<String> {
    run_options(arguments)
        .apply(&mut MachineConfig::default())
        .iter()
        .map(ToString::to_string)
        .collect()
}

#[test]
fn the_definition_is_sound() {
    Arguments::command().debug_assert();
}

#[test]
fn each_key_of_a_configuration_has_its_option() {
    let config = MachineConfig {
        kernel: Some("vmlinux".into()),
        initrd: Some("initrd".into()),
        cmdline: Some("quiet".to_owned()),
        vsock: Some(VsockConfig::new(3, "vm.vsock")),
        ..MachineConfig::default()
    };
    let value = serde_json::to_value(config).unwrap();
    let keys: BTreeSet<_> = value.as_object().unwrap().keys().cloned().collect();
    let command = Arguments::command();
    let options: BTreeSet<_> = command
        .find_subcommand("run")
        .unwrap()
        .get_arguments()
        .filter_map(|argument| argument.get_long().map(str::to_owned))
        .collect();
    let missing: Vec<_> = keys.difference(&options).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn every_option_has_its_effect() {
    let mut config = MachineConfig::default();
    let options = run_options(&[
        "--name=box",
        "--kernel=k",
        "--initrd=i",
        "--cmdline=-c",
        "--unpack=guest",
        "--cpus=4",
        "--cpu=host,-avx",
        "--completion=off",
        "--memory=2G,hugepages=2M,shared=on,prefault=on",
        "--disk=a",
        "--disk=path=b,readonly=on",
        "--net=tap0",
        "--rng=off",
        "--vsock=3,socket=vm.vsock,connections=7",
        "--serial=file=log",
        "--irqchip=kernel",
        "--transport=mmio",
        "--hotplug-slots=3",
        "--packed-rings",
        "--mmio-cmdline",
        "--on-poweroff=preserve",
        "--on-reboot=restart",
        "--on-crash=preserve",
    ]);
    assert_eq!(options.apply(&mut config), []);
    let disks: Vec<_> = config.disk.iter().map(|disk| disk.readonly).collect();
    assert_eq!(disks, [false, true]);
    assert_eq!(config.net.len(), 1);
    let expected = MachineConfig {
        name: "box".to_owned(),
        kernel: Some("k".into()),
        initrd: Some("i".into()),
        cmdline: Some("-c".to_owned()),
        unpack: Unpack::Guest,
        cpus: 4,
        cpu: "host,-avx".to_owned(),
        completion: false,
        memory: MemoryConfig {
            size: ByteSize(2 << 30),
            shared: true,
            hugepages: HugePages::Size2M,
            prefault: true,
        },
        disk: config.disk.clone(),
        net: config.net.clone(),
        rng: false,
        vsock: Some(VsockConfig {
            connections: 7,
            ..VsockConfig::new(3, "vm.vsock")
        }),
        serial: SerialConfig::File("log".into()),
        irqchip: IrqchipMode::Kernel,
        transport: Transport::Mmio,
        hotplug_slots: 3,
        packed_rings: true,
        mmio_cmdline: true,
        on_poweroff: Action::Preserve,
        on_reboot: Action::Restart,
        on_crash: Action::Preserve,
    };
    assert_eq!(config, expected);
}

#[test]
fn options_win_over_a_file_and_lists_are_appended() {
    let mut config = MachineConfig::default();
    let file = ["--cpus=2", "--memory=1G", "--disk=first", "--kernel=k"];
    assert_eq!(run_options(&file).apply(&mut config), []);
    assert_eq!(
        run_options(&["--memory=2G", "--disk=second"]).apply(&mut config),
        []
    );
    assert_eq!(config.cpus, 2);
    assert_eq!(config.kernel, Some("k".into()));
    assert_eq!(config.memory.size, ByteSize(2 << 30));
    let paths: Vec<_> = config.disk.iter().map(|disk| disk.path.clone()).collect();
    assert_eq!(paths, [PathBuf::from("first"), PathBuf::from("second")]);
}

#[test]
fn all_that_is_wrong_is_said_at_once() {
    assert_eq!(
        problems(&["--cpus=-1", "--memory=lots"]),
        [
            "--cpus: '-1' is out of range: use 1 to 255",
            "--memory 'lots': size: 'lots' is not a size: write a number of bytes, or one with K, M, G or T, such as 512M",
        ]
    );
    assert_eq!(
        problems(&[
            "--memory=1G,sharde=on",
            "--disk=readonly=on",
            "--on-crash=explode",
            "--rng=perhaps",
            "--vsock=socket=vm",
        ]),
        [
            "--memory '1G,sharde=on': unknown key 'sharde': use size, shared, hugepages or prefault",
            "--disk 'readonly=on': key 'path' is missing: add path=…",
            "--rng: 'perhaps' is neither on nor off: use on or off",
            "--vsock 'socket=vm': key 'cid' is missing: add cid=…",
            "--on-crash: 'explode' is not a choice: use destroy, restart or preserve",
        ]
    );
}
