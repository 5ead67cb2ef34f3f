use std::collections::BTreeMap;

use proptest::prelude::*;
use serde::Deserialize;
use vmm::config::{
    Action, ByteSize, CacheMode, DiskConfig, DiskEngine, DiskErrorAction, DiskFormat, DiskPolling,
    NetConfig,
};

use super::*;

fn disk(text: &str) -> Result<DiskConfig, String> {
    from_pairs(text, "path").map_err(|error| error.to_string())
}

#[test]
fn a_disk_is_read_with_its_defaults() {
    let expected = DiskConfig::new("/images/root.img");
    assert_eq!(disk("path=/images/root.img"), Ok(expected.clone()));
    assert_eq!(disk("/images/root.img"), Ok(expected));
    assert_eq!(
        disk("root.img,readonly=on,cache=none,serial=a=b,,c"),
        Ok(DiskConfig {
            readonly: true,
            cache: CacheMode::None,
            serial: Some("a=b,c".to_owned()),
            ..DiskConfig::new("root.img")
        })
    );
    assert_eq!(
        disk("a.qcow2,format=qcow2,readonly=on,snapshot=before"),
        Ok(DiskConfig {
            format: DiskFormat::Qcow2,
            readonly: true,
            snapshot: Some("before".to_owned()),
            ..DiskConfig::new("a.qcow2")
        })
    );
    assert_eq!(
        disk("a,engine=io_uring,iopoll=auto,queues=2,bps=10M,bps-burst=1M,iops=500,on-error=stop"),
        Ok(DiskConfig {
            engine: DiskEngine::IoUring,
            iopoll: DiskPolling::Auto,
            queues: Some(2),
            bps: Some(ByteSize(10 << 20)),
            bps_burst: Some(ByteSize(1 << 20)),
            iops: Some(500),
            on_error: DiskErrorAction::Stop,
            ..DiskConfig::new("a")
        })
    );
}

#[test]
fn what_is_wrong_is_said_with_its_key_and_a_remedy() {
    for (text, message) in [
        (
            "path=a,pth=b",
            "unknown key 'pth': use path, format, readonly, snapshot, cache, lock, serial, engine, iopoll, queues, bps, bps-burst, iops, iops-burst or on-error",
        ),
        ("path=a,path=b", "key 'path' is given twice: keep one"),
        ("a,path=b", "key 'path' is given twice: keep one"),
        ("readonly=on", "key 'path' is missing: add path=…"),
        (
            "path=a,readonly=yes",
            "readonly: 'yes' is neither on nor off: use on or off",
        ),
        (
            "path=a,cache=fast",
            "cache: 'fast' is not a choice: use writeback, none, directsync or unsafe",
        ),
        (
            "path=a,readonly",
            "'readonly' has no value: write key=value, with commas between, and a comma in a value twice",
        ),
        (
            "",
            "'' has no value: write key=value, with commas between, and a comma in a value twice",
        ),
        (
            "=a",
            "unknown key '': use path, format, readonly, snapshot, cache, lock, serial, engine, iopoll, queues, bps, bps-burst, iops, iops-burst or on-error",
        ),
    ] {
        assert_eq!(disk(text), Err(message.to_owned()), "{text}");
    }
    let net = from_pairs::<NetConfig>("tap=tap0,mtu=70000", "tap").unwrap_err();
    assert_eq!(
        net.to_string(),
        "mtu: '70000' is not a number from 0 to 65535"
    );
    let net = from_pairs::<NetConfig>("tap0,mac=nonsense", "tap").unwrap_err();
    assert!(net.to_string().starts_with("mac: "), "{net}");
    assert!(net.to_string().contains("nonsense"), "{net}");
}

#[test]
fn values_without_keys_are_taken_whole() {
    assert_eq!(from_scalar("restart"), Ok(Action::Restart));
    assert_eq!(from_scalar("1G"), Ok(ByteSize(1 << 30)));
    assert_eq!(from_scalar("host,-avx"), Ok("host,-avx".to_owned()));
    assert_eq!(from_scalar("off"), Ok(false));
    assert_eq!(from_scalar::<Option<u8>>("7"), Ok(Some(7)));
    let error = from_scalar::<Action>("explode").unwrap_err();
    assert_eq!(
        error.to_string(),
        "'explode' is not a choice: use destroy, restart or preserve"
    );
}

#[derive(Debug, PartialEq, Deserialize)]
struct Numbers {
    unsigned: u64,
    signed: i32,
    fraction: f64,
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(
        pairs in proptest::collection::btree_map("[a-z-]{1,8}", any::<String>(), 1..6)
    ) {
        let text: Vec<_> = pairs
            .iter()
            .map(|(key, value)| format!("{key}={}", value.replace(',', ",,")))
            .collect();
        let read: BTreeMap<String, String> = from_pairs(&text.join(","), "none").unwrap();
        prop_assert_eq!(read, pairs);
    }

    #[test]
    fn numbers_are_read_as_they_are_printed(unsigned: u64, signed: i32, fraction in -1e9..1e9f64) {
        let text = format!("unsigned={unsigned},signed={signed},fraction={fraction}");
        prop_assert_eq!(
            from_pairs::<Numbers>(&text, "none"),
            Ok(Numbers { unsigned, signed, fraction })
        );
    }

    #[test]
    fn any_text_is_a_value_or_an_error_of_one_line(text in "[a-z=,0-9]{0,40}") {
        if let Err(error) = from_pairs::<DiskConfig>(&text, "path") {
            prop_assert!(!error.to_string().contains('\n'));
        }
    }
}
