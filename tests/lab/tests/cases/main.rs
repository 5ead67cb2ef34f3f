//! Stock kernels under `cuddy`: what a user does with a machine, on a KVM that runs kernels natively.
//!
//! `cargo xtask lab` runs these by name, each test in a lab of its own where the host has no such KVM.

mod boot;
mod disk;
mod drivers;
mod failing_disk;
mod fio;
mod hotplug;
mod hotplug_net;
mod kexec;
mod lifecycle;
mod lspci;
mod modules;
mod net;
mod packed;
mod pci;
mod polling;
mod setup;
mod sleep;
mod systemd;
mod tap;
mod tools;
mod transfer;
mod vsock;

/// The lab itself, or the host: without a KVM no other case can pass.
#[test]
fn kvm_is_there() {
    let kvm = kvm_ioctls::Kvm::new().unwrap();
    assert_eq!(kvm.get_api_version(), 12);
    let machine = kvm.create_vm().unwrap();
    machine.create_vcpu(0).unwrap();
}
