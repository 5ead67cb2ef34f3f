//! A network interface that comes, works, and goes in the middle of its work.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread::JoinHandle;

use vmm::config::NetConfig;

use crate::hotplug::{DETACH_LIMIT, Machine};
use crate::tap::Tap;
use crate::transfer;

const TAP: &str = "cuddy-plug0";
const HOST: &str = "10.80.0.1";
const NET_BYTES: usize = 1 << 20;
/// That much has gone each way when the interface is taken away.
const BUSY_BYTES: usize = 128 << 10;

#[test]
fn a_network_interface_is_plugged_and_unplugged_under_traffic() {
    let _tap = Tap::new(TAP, "10.80.0.1/24");
    let mut machine = Machine::start();
    machine.run("there_is_eth0() { until test -e /sys/class/net/eth0; do sleep 0.1; done; }");
    for round in 0..2 {
        let config = NetConfig {
            tap: TAP.to_owned(),
            create: false,
            mac: None,
            mtu: None,
        };
        let id = machine.hotplug.attach(&config.into()).unwrap();
        machine.run("there_is_eth0; ip addr add 10.80.0.2/24 dev eth0; ip link set eth0 up");
        let link =
            "cd /sys/bus/pci/devices/0000:00:02.0 && cat current_link_speed current_link_width";
        assert_eq!(machine.run(link), "2.5 GT/s PCIe\n1");
        transfer::both_ways(&mut machine.console, HOST, NET_BYTES);

        let streams = Streams::start(&mut machine);
        machine.hotplug.detach(id, DETACH_LIMIT).unwrap();
        machine.run("! test -e /sys/class/net/eth0");
        streams.end(&mut machine);
        println!("round {round}: gone");
        machine.is_content();
    }
    machine.power_off();
}

/// Data without an end, in both directions at once.
struct Streams {
    to_guest: TcpStream,
    from_guest: TcpStream,
    writer: JoinHandle<()>,
    reader: JoinHandle<()>,
}

impl Streams {
    /// Starts them and waits until they flow.
    fn start(machine: &mut Machine) -> Self {
        let listener = TcpListener::bind((HOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let connect = |machine: &mut Machine, redirections: &str| {
            machine.run(&format!(
                "{{ nc {HOST} {port} {redirections} 2> /dev/null & }}"
            ));
            listener.accept().unwrap().0
        };
        let mut to_guest = connect(machine, "< /dev/null > /dev/null");
        let mut from_guest = connect(machine, "< /dev/zero > /dev/null");
        let (mut to, mut from) = (
            to_guest.try_clone().unwrap(),
            from_guest.try_clone().unwrap(),
        );
        let mut data = vec![0; BUSY_BYTES];
        to_guest.write_all(&data).unwrap();
        from_guest.read_exact(&mut data).unwrap();
        Self {
            to_guest,
            from_guest,
            // Both end with the connections, which the interface takes nothing from when it goes.
            writer: std::thread::spawn(move || while to.write_all(&[0; 4096]).is_ok() {}),
            reader: std::thread::spawn(move || while from.read(&mut data).is_ok_and(|n| n > 0) {}),
        }
    }

    fn end(self, machine: &mut Machine) {
        for stream in [&self.to_guest, &self.from_guest] {
            stream.shutdown(Shutdown::Both).unwrap();
        }
        self.writer.join().unwrap();
        self.reader.join().unwrap();
        machine.run("killall nc 2> /dev/null; wait; true");
    }
}
