use super::super::{ByteSize, HugePages, MacAddress, MemoryConfig};
use super::*;

fn good() -> MachineConfig {
    MachineConfig {
        kernel: Some("vmlinux".into()),
        ..MachineConfig::default()
    }
}

fn keys(config: &MachineConfig) -> Vec<String> {
    match config.validate() {
        Ok(()) => Vec::new(),
        Err(problems) => problems.0.into_iter().map(|problem| problem.key).collect(),
    }
}

fn net(tap: &str) -> NetConfig {
    NetConfig {
        tap: tap.to_owned(),
        create: false,
        mac: Some(MacAddress::new([2, 0, 0, 0, 0, 1]).unwrap()),
        mtu: None,
    }
}

#[test]
fn the_default_lacks_only_a_kernel() {
    assert_eq!(keys(&MachineConfig::default()), ["kernel"]);
    assert_eq!(keys(&good()), [""; 0]);
}

#[test]
fn all_problems_are_told_at_once() {
    let config = MachineConfig {
        cpus: 0,
        cpu: "host,-nonsense".to_owned(),
        memory: MemoryConfig::with_size(ByteSize(1 << 20)),
        cmdline: Some("a\0b".to_owned()),
        disk: vec![DiskConfig {
            serial: Some("a serial number that is too long".to_owned()),
            ..DiskConfig::new("")
        }],
        net: vec![net("tap0"), net("tap0"), net("a name")],
        ..MachineConfig::default()
    };
    assert_eq!(
        keys(&config),
        [
            "kernel", "cpus", "cpu", "memory", "cmdline", "disk[0]", "disk[0]", "net[1]", "net[2]"
        ]
    );
}

#[test]
fn completions_are_polled_for_past_the_page_cache_by_io_uring() {
    let with = |iopoll, cache, engine| {
        keys(&MachineConfig {
            disk: vec![DiskConfig {
                iopoll,
                cache,
                engine,
                ..DiskConfig::new("root.img")
            }],
            ..good()
        })
    };
    let (on, ring) = (DiskPolling::On, DiskEngine::IoUring);
    for cache in [CacheMode::None, CacheMode::DirectSync] {
        assert_eq!(with(on, cache, ring), [""; 0]);
    }
    assert_eq!(with(on, CacheMode::Writeback, ring), ["disk[0]"]);
    assert_eq!(with(on, CacheMode::None, DiskEngine::Threads), ["disk[0]"]);
    let auto = with(DiskPolling::Auto, CacheMode::Unsafe, DiskEngine::Sync);
    assert_eq!(auto, [""; 0]);
}

#[test]
fn a_snapshot_is_read_and_of_a_qcow2_image() {
    for (format, readonly, fits) in [
        (DiskFormat::Qcow2, true, true),
        (DiskFormat::Auto, true, true),
        (DiskFormat::Qcow2, false, false),
        (DiskFormat::Raw, true, false),
    ] {
        let disk = DiskConfig {
            format,
            readonly,
            snapshot: Some("before".to_owned()),
            ..DiskConfig::new("root.qcow2")
        };
        assert_eq!(disk_problems("disk", &disk).is_empty(), fits);
    }
}

#[test]
fn queues_and_rates_of_a_disk_have_their_limits() {
    let with = |change: fn(&mut DiskConfig)| {
        let mut disk = DiskConfig::new("root.img");
        change(&mut disk);
        keys(&MachineConfig {
            disk: vec![disk],
            ..good()
        })
    };
    assert_eq!(with(|disk| disk.queues = Some(DISK_QUEUES_MAX)), [""; 0]);
    assert_eq!(with(|disk| disk.queues = Some(0)), ["disk[0]"]);
    assert_eq!(
        with(|disk| disk.queues = Some(DISK_QUEUES_MAX + 1)),
        ["disk[0]"]
    );
    assert_eq!(with(|disk| disk.bps = Some(ByteSize(0))), ["disk[0]"]);
    assert_eq!(with(|disk| disk.iops_burst = Some(5)), ["disk[0]"]);
    assert_eq!(
        with(|disk| (disk.iops, disk.iops_burst) = (Some(100), Some(5))),
        [""; 0]
    );
}

#[test]
fn memory_comes_in_whole_pages() {
    let mut config = good();
    config.memory.size = ByteSize((64 << 20) + 512);
    assert_eq!(keys(&config), ["memory"]);
    config.memory.size = ByteSize(65 << 20);
    assert_eq!(keys(&config), [""; 0]);
    config.memory.hugepages = HugePages::Size2M;
    assert_eq!(keys(&config), ["memory"]);
}

#[test]
fn cpus_and_devices_have_their_limits() {
    let mut config = good();
    config.cpus = 255;
    assert_eq!(keys(&config), [""; 0]);
    config.cpus = 256;
    assert_eq!(keys(&config), ["cpus"]);
    config.cpus = 1;
    for (transport, most) in [(Transport::Pci, 31), (Transport::Mmio, 15)] {
        config.transport = transport;
        config.rng = true;
        config.net = (0..most).map(|index| net(&format!("tap{index}"))).collect();
        assert_eq!(keys(&config), ["disk, net, rng, vsock"]);
        config.rng = false;
        assert_eq!(keys(&config), [""; 0]);
    }
}

#[test]
fn slots_are_on_pci_beside_the_devices() {
    let mut config = good();
    config.hotplug_slots = 30;
    assert_eq!(keys(&config), [""; 0]);
    config.hotplug_slots = 31;
    assert_eq!(keys(&config), ["hotplug-slots"]);
    config.rng = false;
    assert_eq!(keys(&config), [""; 0]);
    config.transport = Transport::Mmio;
    assert_eq!(keys(&config), ["hotplug-slots"]);
}

#[test]
fn devices_on_pci_are_not_announced_on_the_command_line() {
    let mut config = good();
    config.mmio_cmdline = true;
    assert_eq!(keys(&config), ["mmio-cmdline"]);
    config.transport = Transport::Mmio;
    assert_eq!(keys(&config), [""; 0]);
}

#[test]
fn a_vsock_has_an_identifier_a_path_and_connections() {
    let with = |vsock| {
        let config = MachineConfig {
            vsock: Some(vsock),
            ..good()
        };
        match config.validate() {
            Ok(()) => Vec::new(),
            Err(problems) => problems.0.iter().map(ToString::to_string).collect(),
        }
    };
    assert_eq!(with(VsockConfig::new(3, "vm.vsock")), [""; 0]);
    assert_eq!(with(VsockConfig::new(3, "x".repeat(96))), [""; 0]);
    let bad = VsockConfig {
        connections: 1025,
        ..VsockConfig::new(3, "")
    };
    assert_eq!(
        with(bad),
        [
            "vsock: connections 1025 is out of range: use 1 to 1024",
            "vsock: socket is empty: name a path",
        ]
    );
    assert_eq!(
        with(VsockConfig::new(2, "x".repeat(97))),
        [
            "vsock: cid 2 is reserved: use 3 to 4294967294",
            "vsock: socket is 97 bytes long: use a path of at most 96, for ports come behind it",
        ]
    );
}
