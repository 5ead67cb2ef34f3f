use super::*;

const SECTORS: u64 = 16 * 128;

/// A disk on which the records `numbers` were written, in this order.
fn written(numbers: Range<u64>) -> Vec<u8> {
    let log = WriteLog::new(SECTORS);
    let mut image = vec![0; index(SECTORS) * SECTOR_BYTES];
    for number in numbers {
        write(&log, &mut image, number);
    }
    image
}

fn write(log: &WriteLog, image: &mut [u8], number: u64) {
    for sector in log.place(number) {
        let start = index(sector) * SECTOR_BYTES;
        image[start..start + SECTOR_BYTES].copy_from_slice(&content(number, sector));
    }
}

#[test]
fn what_is_flushed_must_be_there_and_what_was_under_way_may_be() {
    let mut log = WriteLog::new(SECTORS);
    log.check(&written(0..40), 40).unwrap();
    let mut log = WriteLog::new(SECTORS);
    log.check(&written(0..56), 40).unwrap();
    assert_eq!(log.next(), 72);
    let mut log = WriteLog::new(SECTORS);
    assert!(log.check(&written(0..39), 40).is_err(), "one is missing");
    let mut log = WriteLog::new(SECTORS);
    assert!(
        log.check(&written(0..74), 40).is_err(),
        "one that cannot be"
    );
}

#[test]
fn what_was_left_behind_stays() {
    let mut log = WriteLog::new(SECTORS);
    log.check(&written(0..50), 40).unwrap();
    assert!(
        log.check(&written(0..40), log.next()).is_err(),
        "what was seen is gone"
    );
    let mut log = WriteLog::new(SECTORS);
    let mut image = written(0..50);
    log.check(&image, 40).unwrap();
    write(&log, &mut image, 72);
    log.check(&image, 73).unwrap();
}

#[test]
fn a_flipped_bit_is_found() {
    let mut image = written(0..16);
    let last = WriteLog::new(SECTORS).place(15).end;
    image[index(last) * SECTOR_BYTES - 1] ^= 1;
    assert!(WriteLog::new(SECTORS).check(&image, 0).is_err());
}
