//! A Debian root file system, as Debian's packages make it, with systemd.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use cuddy_lab::Assets;

use crate::setup::{self, COMMAND_LIMIT, END_LIMIT};
use crate::tap::Tap;

/// From the start to the login prompt, through all of systemd's units.
const SYSTEMD_LIMIT: Duration = Duration::from_secs(300);

/// A disk that may be written: in the lab the block device itself, on the host a copy of the image.
fn private_disk(image: &Path, folder: &Path) -> PathBuf {
    if image.metadata().unwrap().file_type().is_block_device() {
        return image.to_owned();
    }
    let copy = folder.join("root.img");
    std::fs::copy(image, &copy).unwrap();
    copy
}

#[test]
fn debian_reaches_its_login_with_the_network_up() {
    let folder = tempfile::tempdir().unwrap();
    let assets = Assets::get().unwrap();
    let disk = private_disk(&assets.root_disk, folder.path());
    let _tap = Tap::new("cuddy-sys0", "10.77.0.1/24");
    let mut options = setup::options(|assets| &assets.vmlinuz);
    options.cpus = 2;
    options.memory_mib = 1024;
    options.cmdline = "console=ttyS0 quiet CUDDY_MODE=root".to_owned();
    options.disks = vec![format!("path={}", disk.display())];
    options.nets = vec!["tap=cuddy-sys0".to_owned()];
    let mut machine = options.start().unwrap();
    let console = &mut machine.console;
    console
        .expect("cuddy-debian login: ", SYSTEMD_LIMIT)
        .unwrap();
    console.send("root\n").unwrap();
    console
        .expect("root@cuddy-debian:~# ", SYSTEMD_LIMIT)
        .unwrap();
    // Bash would colour and bracket what is typed.
    console.send("exec sh\n").unwrap();
    console.expect("# ", COMMAND_LIMIT).unwrap();

    let mut run = |command: &str| machine.run(command, COMMAND_LIMIT).unwrap();
    assert_eq!(run("cat /proc/1/comm"), "systemd");
    let failed = run("systemctl --failed --no-legend --plain | cat");
    assert_eq!(failed, "");
    assert!(run("ip -brief addr").contains("10.77.0.2/24"));

    let listener = TcpListener::bind("10.77.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let host = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut line = [0; 6];
        stream.read_exact(&mut line).unwrap();
        stream.write_all(b"from the host\n").unwrap();
        line
    });
    let talk =
        format!("bash -c 'exec 5<>/dev/tcp/10.77.0.1/{port}; echo guest >&5; head -n 1 <&5'");
    assert_eq!(run(&talk), "from the host");
    assert_eq!(&host.join().unwrap(), b"guest\n");

    machine.console.send("systemctl poweroff\n").unwrap();
    let status = machine.wait(END_LIMIT + SYSTEMD_LIMIT).unwrap();
    assert_eq!(status.code(), Some(0), "{}", machine.messages());
}
