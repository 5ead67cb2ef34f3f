//! `lspci -vv` on all functions: everything in their configuration spaces is decoded, and set as drivers set it.

use std::path::Path;

use cuddy_lab::Machine;

use crate::setup::TRANSFER_LIMIT;

/// What it writes when something cannot be read or makes no sense.
const NONSENSE: [&str; 6] = [
    "!!!",
    "access denied",
    "Unknown",
    "unknown",
    "<unassigned>",
    "[disabled]",
];
/// The link of an empty slot, which has no speed (PCI Express Base Specification 5.0, 7.5.3.8).
const NO_LINK: &str = "LnkSta:\tSpeed unknown, Width x0\n\t\t\tTrErr- Train- SlotClk- DLActive-";
/// Capabilities of each virtio device, in the words of pciutils 3.9, which does not know the last.
const VIRTIO: [&str; 5] = [
    "VirtIO: CommonCfg\n\t\tBAR=0 offset=00000000 size=0000003c",
    "VirtIO: ISR\n\t\tBAR=0 offset=",
    "VirtIO: DeviceCfg\n\t\tBAR=0 offset=",
    "VirtIO: Notify\n\t\tBAR=0 offset=",
    PCI_CONFIGURATION_ACCESS,
];
const PCI_CONFIGURATION_ACCESS: &str = "VirtIO: <unknown>\n\t\tBAR=0 offset=00000000 size=00000000";

/// Runs it in a guest with two disks, a network interface and two slots, and one vCPU. Its output is too long for
/// a serial port: it comes by the disk `/dev/vda`, which is the file `image` here.
pub(crate) fn check(machine: &mut Machine, image: &Path) {
    let copy =
        "tool lspci -vv 2> /dev/null > /tmp/lspci && dd if=/tmp/lspci of=/dev/vda conv=fsync";
    machine.run(copy, TRANSFER_LIMIT).unwrap();
    let bytes = std::fs::read(image).unwrap();
    let text = String::from_utf8(bytes).unwrap();
    let text = text.trim_end_matches('\0');
    let functions: Vec<&str> = text.trim().split("\n\n").collect();
    let addresses: Vec<&str> = functions.iter().map(|function| &function[..7]).collect();
    assert_eq!(
        addresses,
        [
            "00:00.0", "00:01.0", "00:02.0", "00:03.0", "00:04.0", "00:05.0", "00:06.0"
        ],
        "{text}"
    );
    assert!(functions[0].contains("Host bridge: "), "{text}");
    for function in &functions {
        let known = function
            .replace(PCI_CONFIGURATION_ACCESS, "")
            .replace(NO_LINK, "");
        for nonsense in NONSENSE {
            assert!(!known.contains(nonsense), "{nonsense:?} in:\n{function}");
        }
    }
    // A message for each queue and one for the configuration.
    let devices = [
        ("Virtio 1.0 block device", 2),
        ("Virtio 1.0 block device", 2),
        ("Virtio 1.0 network device", 3),
        ("Virtio 1.0 RNG", 2),
    ];
    for (function, (name, vectors)) in functions[1..5].iter().zip(devices) {
        has(function, &[name, "Kernel driver in use: virtio-pci"]);
        has(function, &["Mem+ BusMaster+", "DisINTx+", "[size=32K]"]);
        has(
            function,
            &["Express (v2) Root Complex Integrated Endpoint", "FLReset+"],
        );
        has(
            function,
            &["Power Management version 3", "Status: D0 NoSoftRst+"],
        );
        has(
            function,
            &[&format!("MSI-X: Enable+ Count={vectors} Masked-")],
        );
        has(
            function,
            &["Vector table: BAR=0 offset=", "PBA: BAR=0 offset="],
        );
        has(function, &VIRTIO);
    }
    for (number, function) in functions[5..].iter().enumerate() {
        let bus = number + 1;
        let buses = format!("Bus: primary=00, secondary={bus:02x}, subordinate={bus:02x}");
        has(
            function,
            &["PCI bridge: ", "(prog-if 00 [Normal decode])", &buses],
        );
        has(function, &["Kernel driver in use: pcieport", "BusMaster+"]);
        has(
            function,
            &["Express (v2) Root Port (Slot+)", "HotPlug+ Surprise-"],
        );
        has(
            function,
            &[&format!("Slot #{bus},"), "PresDet-", "MSI: Enable+"],
        );
        has(
            function,
            &["LnkCap:\tPort #", "Speed 2.5GT/s, Width x1,", NO_LINK],
        );
    }
}

fn has(function: &str, words: &[&str]) {
    for word in words {
        assert!(function.contains(word), "no {word:?} in:\n{function}");
    }
}
