//! What is said of a guest that KVM can run no further.

use kvm_bindings::KVM_INTERNAL_ERROR_EMULATION;
use kvm_ioctls::VcpuFd;

use super::run_page::RunPage;

/// Set in the first datum of an emulation error when instruction bytes follow (KVM API, 5,
/// `KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES`).
const FLAG_INSTRUCTION_BYTES: u64 = 1;
/// The longest instruction (Intel SDM volume 2, 2.3.11).
const INSTRUCTION_BYTES_MAX: usize = 15;

/// One line on a KVM_EXIT_INTERNAL_ERROR: kind, place, instruction.
pub fn describe_internal_error(vcpu: &VcpuFd, page: &RunPage) -> String {
    let (suberror, data) = page.internal_error();
    let place = vcpu
        .get_regs()
        .map(|registers| format!(" at {:#x}", registers.rip))
        .unwrap_or_default();
    format!("KVM failed inside the guest{place}: suberror {suberror}, data {data:#x?}")
}

/// The bytes of an instruction that KVM would not emulate, as far as it gave them. None when KVM stopped for
/// something else.
pub fn refused_instruction(page: &RunPage) -> Option<Vec<u8>> {
    let (suberror, data) = page.internal_error();
    (suberror == KVM_INTERNAL_ERROR_EMULATION).then(|| instruction_bytes(&data).unwrap_or_default())
}

/// The bytes that KVM gave.
fn instruction_bytes(data: &[u64]) -> Option<Vec<u8>> {
    let (&flags, rest) = data.split_first()?;
    if flags & FLAG_INSTRUCTION_BYTES == 0 {
        return None;
    }
    let bytes: Vec<u8> = rest.iter().flat_map(|datum| datum.to_le_bytes()).collect();
    let (&count, bytes) = bytes.split_first()?;
    let count = usize::from(count).min(INSTRUCTION_BYTES_MAX);
    Some(bytes.iter().copied().take(count).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_shown_as_far_as_kvm_gave_them() {
        let packed = u64::from_le_bytes([2, 0x0f, 0xc7, 0xff, 0xff, 0xff, 0xff, 0xff]);
        assert_eq!(instruction_bytes(&[1, packed]), Some(vec![0x0f, 0xc7]));
        assert_eq!(instruction_bytes(&[0, packed]), None);
        assert_eq!(instruction_bytes(&[]), None);
        assert_eq!(instruction_bytes(&[1]), None);
        assert_eq!(
            instruction_bytes(&[1, u64::MAX, u64::MAX]).map(|bytes| bytes.len()),
            Some(15)
        );
    }
}
