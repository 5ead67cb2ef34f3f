use super::*;

#[test]
fn required_registers_come_first_and_none_twice() {
    let required = BOOT
        .iter()
        .take_while(|msr| msr.importance == Importance::Required)
        .count();
    assert!(required > 0);
    for (position, msr) in BOOT.iter().enumerate() {
        assert_eq!(msr.importance == Importance::Required, position < required);
        assert!(
            BOOT[..position]
                .iter()
                .all(|other| other.index != msr.index)
        );
    }
}

#[test]
fn values_are_those_that_firmware_leaves() {
    let value = |index| {
        BOOT.iter()
            .find(|msr| msr.index == index)
            .map(|msr| msr.value)
    };
    assert_eq!(value(IA32_MTRR_DEF_TYPE), Some(0x806));
    assert_eq!(value(IA32_MISC_ENABLE), Some(0x1801));
    assert_eq!(value(IA32_PAT), Some(0x0007_0406_0007_0406));
}
