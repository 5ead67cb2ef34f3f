use super::*;

const BARE: Surroundings = Surroundings {
    container: false,
    module_loaded: false,
    group_kvm: true,
};

fn processor(virtualization: Virtualization, is_virtual: bool, is_amd: bool) -> Processor {
    Processor {
        virtualization,
        is_virtual,
        is_amd,
        tsc_is_steady: true,
    }
}

fn text(access: KvmAccess, processor: &Processor, surroundings: Surroundings) -> String {
    remedy(access, processor, surroundings).unwrap()
}

#[test]
fn what_is_open_needs_no_remedy() {
    let intel = processor(Virtualization::Vmx, false, false);
    assert_eq!(remedy(KvmAccess::Open, &intel, BARE), None);
}

#[test]
fn a_missing_device_is_a_module_a_setting_a_cloud_or_a_container() {
    let missing = KvmAccess::Missing;
    let intel = processor(Virtualization::Vmx, false, false);
    assert!(text(missing, &intel, BARE).contains("modprobe kvm_intel"));
    let amd = processor(Virtualization::Svm, false, true);
    assert!(text(missing, &amd, BARE).contains("modprobe kvm_amd"));
    let disabled = processor(Virtualization::None, false, true);
    assert!(text(missing, &disabled, BARE).contains("SVM (AMD-V) in the firmware (BIOS)"));
    let disabled = processor(Virtualization::None, false, false);
    assert!(text(missing, &disabled, BARE).contains("VT-x"));
    let cloud = processor(Virtualization::None, true, false);
    assert!(text(missing, &cloud, BARE).contains("nested"));
    let container = Surroundings {
        container: true,
        module_loaded: true,
        ..BARE
    };
    assert!(text(missing, &cloud, container).contains("--device /dev/kvm"));
}

#[test]
fn a_closed_device_is_a_matter_of_groups() {
    let intel = processor(Virtualization::Vmx, false, false);
    assert!(text(KvmAccess::Denied, &intel, BARE).contains("usermod -aG kvm"));
    let no_group = Surroundings {
        group_kvm: false,
        ..BARE
    };
    assert!(text(KvmAccess::Denied, &intel, no_group).contains("setfacl"));
}

#[test]
fn errors_of_open_are_told_apart() {
    for (code, access) in [
        (libc::ENOENT, KvmAccess::Missing),
        (libc::ENODEV, KvmAccess::Missing),
        (libc::ENXIO, KvmAccess::Missing),
        (libc::EACCES, KvmAccess::Denied),
        (libc::EPERM, KvmAccess::Denied),
        (libc::EMFILE, KvmAccess::Failed),
    ] {
        let error = io::Error::from_raw_os_error(code);
        assert_eq!(KvmAccess::from_error(&error), access);
    }
}
