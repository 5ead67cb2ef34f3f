//! The network device, against the host's own protocol stack behind the TAP device: 10.77.0.1, with an
//! echo service on UDP port 7777. We are 10.77.0.2.

use runtime::interrupts::count;
use runtime::report::Test;
use runtime::time::{SECONDS, cycles, wait_until};
use runtime::virtio::net::{NEEDS_CSUM, NetDevice, Received, bit};
use runtime::virtio::{Device, Layout, device_id, feature};
use runtime::{Machine, lapic, println, privileged};

pub const TESTS: &[(&str, Test)] = &[
    ("net-identity", identity),
    ("net-arp", arp),
    ("net-udp", udp),
    ("net-checksum", checksum),
    ("net-mergeable", mergeable),
    ("net-interrupt", interrupt),
    ("net-overrun", overrun),
];

const HOST: [u8; 4] = [10, 77, 0, 1];
const GUEST: [u8; 4] = [10, 77, 0, 2];
const PORT: u16 = 7777;
const ETHERNET_BYTES: usize = 14;
const IP_BYTES: usize = 20;
const UDP_BYTES: usize = 8;
const PAYLOAD_AT: usize = ETHERNET_BYTES + IP_BYTES + UDP_BYTES;
/// What an Ethernet of 1500 bytes leaves for UDP.
const PAYLOAD_MAX: usize = 1500 - IP_BYTES - UDP_BYTES;
const CHECKSUM_OFFSET: u16 = 6;

fn device(machine: &Machine) -> Device {
    Device::first(machine, device_id::NET)
}

/// The MAC address is that of `net.mac`, locally administered without it, and never a group's.
fn identity(machine: &Machine) {
    let net = NetDevice::start(device(machine), 0);
    let [a, b, c, d, e, f] = net.mac;
    println!("MAC {a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}");
    assert_ne!(net.features & bit::MAC, 0, "VIRTIO_NET_F_MAC");
    let packed = net.features & feature::RING_PACKED != 0;
    assert_eq!(
        packed,
        machine.option("rings") == Some("packed"),
        "RING_PACKED"
    );
    assert_eq!(a & 1, 0, "a group's address");
    match machine.option("net.mac") {
        Some(expected) => {
            let mut bytes = expected
                .split(':')
                .map(|byte| u8::from_str_radix(byte, 16).expect("hexadecimal"));
            let expected = [(); 6].map(|()| bytes.next().expect("six bytes"));
            assert_eq!(net.mac, expected);
        }
        None => assert_eq!(a & 2, 2, "not locally administered"),
    }
    net.device.reset();
}

/// Asks for the host's MAC address.
pub fn resolve(net: &mut NetDevice) -> [u8; 6] {
    let mut frame = [0; 60];
    frame[..6].fill(0xff);
    frame[6..12].copy_from_slice(&net.mac);
    frame[12..22].copy_from_slice(&[0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1]);
    frame[22..28].copy_from_slice(&net.mac);
    frame[28..32].copy_from_slice(&GUEST);
    frame[38..42].copy_from_slice(&HOST);
    // The interface may just be coming up: ask again.
    for _ in 0..20 {
        net.send(Layout::Chain, &frame, None);
        let start = cycles();
        while cycles().wrapping_sub(start) < SECONDS / 2 {
            let Some(received) = net.receive(SECONDS / 10) else {
                continue;
            };
            let mut answer = [0; 42];
            if received.frame.len() >= answer.len() {
                received.frame.read(0, &mut answer);
            }
            net.give_back(received);
            if answer[12..14] == [0x08, 0x06] && answer[20..22] == [0, 2] && answer[28..32] == HOST
            {
                let mut mac = [0; 6];
                mac.copy_from_slice(&answer[22..28]);
                return mac;
            }
        }
    }
    panic!(
        "the host does not answer ARP, status {:#x}",
        net.device.status()
    )
}

fn arp(machine: &Machine) {
    let mut net = NetDevice::start(device(machine), feature::EVENT_IDX | feature::INDIRECT_DESC);
    net.offer_receive_buffers();
    let mac = resolve(&mut net);
    println!("host {mac:02x?}");
    assert_eq!(mac[0] & 1, 0);
    net.device.reset();
}

/// Sum of 16-bit words in ones' complement, not folded.
fn sum_words(bytes: &[u8]) -> u32 {
    bytes.chunks(2).fold(0, |sum, pair| {
        sum + u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]))
    })
}

fn fold(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// Sum of UDP's pseudo header (RFC 768).
fn pseudo_header(source: [u8; 4], destination: [u8; 4], udp_bytes: usize) -> u32 {
    sum_words(&source) + sum_words(&destination) + 17 + udp_bytes as u32
}

fn payload_byte(sequence: u32, offset: usize) -> u8 {
    (sequence as usize * 31 + offset * 7) as u8
}

/// A UDP packet to the host with `payload` bytes; with `partial`, its checksum is that of the pseudo
/// header alone.
fn udp_frame(
    net: &NetDevice,
    host: [u8; 6],
    sequence: u32,
    payload: usize,
    partial: bool,
) -> [u8; 1514] {
    let mut frame = [0; 1514];
    frame[..6].copy_from_slice(&host);
    frame[6..12].copy_from_slice(&net.mac);
    frame[12..14].copy_from_slice(&[0x08, 0x00]);
    let udp_bytes = UDP_BYTES + payload;
    let ip = &mut frame[ETHERNET_BYTES..ETHERNET_BYTES + IP_BYTES];
    ip[..2].copy_from_slice(&[0x45, 0]);
    ip[2..4].copy_from_slice(&((IP_BYTES + udp_bytes) as u16).to_be_bytes());
    ip[6] = 0x40;
    ip[8..10].copy_from_slice(&[64, 17]);
    ip[12..16].copy_from_slice(&GUEST);
    ip[16..20].copy_from_slice(&HOST);
    let checksum = !fold(sum_words(ip));
    ip[10..12].copy_from_slice(&checksum.to_be_bytes());
    let udp = &mut frame[ETHERNET_BYTES + IP_BYTES..][..udp_bytes];
    udp[..2].copy_from_slice(&PORT.to_be_bytes());
    udp[2..4].copy_from_slice(&PORT.to_be_bytes());
    udp[4..6].copy_from_slice(&(udp_bytes as u16).to_be_bytes());
    for (offset, byte) in udp[UDP_BYTES..].iter_mut().enumerate() {
        *byte = payload_byte(sequence, offset);
    }
    if payload >= 4 {
        udp[UDP_BYTES..UDP_BYTES + 4].copy_from_slice(&sequence.to_be_bytes());
    }
    let pseudo = pseudo_header(GUEST, HOST, udp_bytes);
    let checksum = if partial {
        fold(pseudo)
    } else {
        match !fold(pseudo + sum_words(udp)) {
            0 => 0xffff,
            other => other,
        }
    };
    udp[6..8].copy_from_slice(&checksum.to_be_bytes());
    frame
}

/// Whether a received frame is the echo of packet `sequence`, with every byte and checksum right.
fn is_echo(
    received: &Received,
    sequence: u32,
    payload: usize,
    checksum_may_be_partial: bool,
) -> bool {
    let length = PAYLOAD_AT + payload;
    if received.frame.len() < length {
        return false;
    }
    let mut frame = [0; 1514];
    received.frame.read(0, &mut frame[..length]);
    let (ip, udp) = (
        &frame[ETHERNET_BYTES..ETHERNET_BYTES + IP_BYTES],
        &frame[ETHERNET_BYTES + IP_BYTES..length],
    );
    if frame[12..14] != [0x08, 0x00]
        || ip[9] != 17
        || ip[12..16] != HOST
        || udp[2..4] != PORT.to_be_bytes()
        || usize::from(u16::from_be_bytes([udp[4], udp[5]])) != udp.len()
        || udp[UDP_BYTES..UDP_BYTES + 4] != sequence.to_be_bytes()
    {
        return false;
    }
    assert_eq!(fold(sum_words(ip)), 0xffff, "checksum of the IP header");
    let pseudo = pseudo_header(HOST, GUEST, udp.len());
    if received.flags & NEEDS_CSUM != 0 {
        assert!(
            checksum_may_be_partial,
            "an incomplete checksum that was not agreed upon"
        );
        assert_eq!(
            fold(pseudo),
            u16::from_be_bytes([udp[6], udp[7]]),
            "partial checksum"
        );
    } else if udp[6..8] != [0, 0] {
        assert_eq!(fold(pseudo + sum_words(udp)), 0xffff, "checksum of UDP");
    }
    for (offset, byte) in udp[UDP_BYTES..].iter().enumerate().skip(4) {
        assert_eq!(*byte, payload_byte(sequence, offset), "payload at {offset}");
    }
    true
}

/// Sends `packets` packets of all sizes, one after the other, and waits for the echo of each.
fn exchange(net: &mut NetDevice, packets: u32, layout: Layout) {
    let host = resolve(net);
    let partial = net.features & bit::CSUM != 0;
    let partial_in = net.features & bit::GUEST_CSUM != 0;
    for sequence in 0..packets {
        let payload = match sequence {
            0 => PAYLOAD_MAX,
            1 => 4,
            _ => 4 + sequence as usize * 97 % (PAYLOAD_MAX - 3),
        };
        let frame = udp_frame(net, host, sequence, payload, partial);
        let checksum = partial.then_some(((ETHERNET_BYTES + IP_BYTES) as u16, CHECKSUM_OFFSET));
        net.send(layout, &frame[..PAYLOAD_AT + payload], checksum);
        let echo =
            net.receive_matching(|received| is_echo(received, sequence, payload, partial_in));
        net.give_back(echo);
    }
}

/// Packets of all sizes go out and come back, without offloads.
fn udp(machine: &Machine) {
    let packets = machine.number("packets", 200) as u32;
    let mut net = NetDevice::start(device(machine), 0);
    net.offer_receive_buffers();
    exchange(&mut net, packets, Layout::Chain);
    net.device.reset();
    // Again after a reset, with all of the ring's features.
    let mut net = NetDevice::start(device(machine), feature::EVENT_IDX | feature::INDIRECT_DESC);
    net.offer_receive_buffers();
    exchange(&mut net, packets, Layout::Indirect);
    net.device.reset();
}

/// The host completes our checksums, and may leave its own to us.
fn checksum(machine: &Machine) {
    let wanted = bit::CSUM | bit::GUEST_CSUM;
    let mut net = NetDevice::start(device(machine), wanted | feature::EVENT_IDX);
    assert_eq!(net.features & wanted, wanted, "CSUM and GUEST_CSUM");
    net.offer_receive_buffers();
    exchange(
        &mut net,
        machine.number("packets", 50) as u32,
        Layout::Chain,
    );
    net.device.reset();
}

/// With mergeable receive buffers.
fn mergeable(machine: &Machine) {
    let mut net = NetDevice::start(device(machine), bit::MRG_RXBUF | feature::EVENT_IDX);
    assert_ne!(net.features & bit::MRG_RXBUF, 0, "MRG_RXBUF");
    net.offer_receive_buffers();
    exchange(
        &mut net,
        machine.number("packets", 50) as u32,
        Layout::Chain,
    );
    net.device.reset();
}

/// A received packet interrupts.
fn interrupt(machine: &Machine) {
    let device = device(machine);
    lapic::enable();
    device.route_interrupt(machine);
    privileged::interrupts_on();
    let mut net = NetDevice::start(device, 0);
    net.transmit.set_interrupts(false);
    net.offer_receive_buffers();
    let host = resolve(&mut net);
    device.take_interrupt_status();
    for sequence in 0..10 {
        let before = count(device.vector);
        let frame = udp_frame(&net, host, sequence, 64, false);
        net.send(Layout::Chain, &frame[..PAYLOAD_AT + 64], None);
        assert!(
            wait_until(5 * SECONDS, || count(device.vector) > before),
            "no interrupt for a received packet"
        );
        let expected = device.used_buffer_status();
        assert_eq!(
            device.take_interrupt_status() & 1,
            expected,
            "interrupt status"
        );
        let echo = net.receive_matching(|received| is_echo(received, sequence, 64, false));
        net.give_back(echo);
    }
    privileged::interrupts_off();
    device.reset();
}

/// More packets arrive than there are buffers; afterwards all goes on.
fn overrun(machine: &Machine) {
    let mut net = NetDevice::start(device(machine), feature::EVENT_IDX);
    net.offer_receive_buffers();
    let host = resolve(&mut net);
    for sequence in 0..500 {
        let frame = udp_frame(&net, host, 1_000_000 + sequence, 1000, false);
        net.send(Layout::Chain, &frame[..PAYLOAD_AT + 1000], None);
    }
    let mut received = 0;
    while let Some(packet) = net.receive(SECONDS / 2) {
        received += 1;
        net.give_back(packet);
    }
    println!("{received} of 500 packets came back");
    assert!(received >= 32, "fewer packets than buffers");
    exchange(&mut net, 20, Layout::Chain);
    net.device.reset();
}
