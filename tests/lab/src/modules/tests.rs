//! Order and names of modules.

use std::fs;
use std::io::Write;

use super::Modules;

fn object(depends: &str) -> Vec<u8> {
    format!("\u{7f}ELF…license=GPL\0depends={depends}\0name=x\0").into_bytes()
}

fn names(modules: &Modules, wanted: &[&str]) -> Vec<String> {
    let modules = modules.with_dependencies(wanted).unwrap();
    modules.into_iter().map(|module| module.name).collect()
}

#[test]
fn modules_come_after_what_they_need() {
    let folder = tempfile::tempdir().unwrap();
    let drivers = folder.path().join("drivers");
    fs::create_dir(&drivers).unwrap();
    for (name, depends) in [
        ("virtio_ring", ""),
        ("virtio", "virtio_ring"),
        ("virtio-rng", "virtio,virtio_ring"),
        ("net_failover", "failover"),
        ("failover", ""),
        ("virtio_net", "virtio,net_failover"),
    ] {
        fs::write(drivers.join(format!("{name}.ko")), object(depends)).unwrap();
    }
    let modules = Modules::in_folder(folder.path()).unwrap();
    assert_eq!(
        names(&modules, &["virtio_rng", "virtio-net", "built_in"]),
        [
            "virtio_ring",
            "virtio",
            "virtio_rng",
            "failover",
            "net_failover",
            "virtio_net"
        ]
    );
}

#[test]
fn compressed_modules_are_unpacked() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer =
        lzma_rust2::XzWriter::new(Vec::new(), lzma_rust2::XzOptions::with_preset(1)).unwrap();
    writer.write_all(&object("")).unwrap();
    fs::write(folder.path().join("tun.ko.xz"), writer.finish().unwrap()).unwrap();
    let modules = Modules::in_folder(folder.path()).unwrap();
    let tun = modules.with_dependencies(&["tun"]).unwrap();
    assert_eq!(tun[0].object, object(""));
}
