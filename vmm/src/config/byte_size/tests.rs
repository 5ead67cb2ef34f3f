use proptest::prelude::*;

use super::*;

#[test]
fn people_write_sizes_in_several_ways() {
    for (text, bytes) in [
        ("0", 0),
        ("512", 512),
        ("1k", 1 << 10),
        ("512M", 512 << 20),
        ("1GiB", 1 << 30),
        ("2T", 2 << 40),
    ] {
        assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
    }
}

#[test]
fn what_is_not_a_size_is_said_with_the_text() {
    for text in [
        "",
        "M",
        "1.5G",
        "-1",
        "1X",
        "1MB",
        "1iB",
        "99999999999T",
        "1 G",
    ] {
        let message = text.parse::<ByteSize>().unwrap_err().to_string();
        assert!(message.starts_with(&format!("'{text}' is not a size")));
    }
}

proptest! {
    #[test]
    fn what_is_printed_is_read_back(bytes: u64, shift in 0u32..41) {
        let size = ByteSize(bytes >> shift << shift);
        prop_assert_eq!(size.to_string().parse(), Ok(size));
    }
}
