//! Entries are made once and are complete.

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::{Cache, digest};
use crate::error::LabError;

#[test]
fn an_entry_is_made_once_even_when_many_ask() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::open_at(folder.path()).unwrap();
    let made = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let path = cache
                    .entry("thing", |new| {
                        made.fetch_add(1, Ordering::SeqCst);
                        fs::write(new, "content").unwrap();
                        Ok(())
                    })
                    .unwrap();
                assert_eq!(fs::read_to_string(path).unwrap(), "content");
            });
        }
    });
    assert_eq!(made.load(Ordering::SeqCst), 1);
}

#[test]
fn a_failed_entry_leaves_nothing_and_can_be_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::open_at(folder.path()).unwrap();
    let failed = cache.entry("thing", |new| {
        fs::create_dir(new).unwrap();
        fs::write(new.join("half"), "half").unwrap();
        Err(LabError::Unusable("no network".to_owned()))
    });
    assert_eq!(failed.unwrap_err().to_string(), "no network");
    assert!(!folder.path().join("thing").exists());

    let path = cache
        .entry("thing", |new| {
            fs::write(new, "whole").unwrap();
            Ok(())
        })
        .unwrap();
    assert_eq!(fs::read_to_string(path).unwrap(), "whole");
}

#[test]
fn digests_tell_inputs_apart() {
    assert_eq!(digest(&[b"a", b"b"]), digest(&[b"a", b"b"]));
    assert_ne!(digest(&[b"a", b"b"]), digest(&[b"ab"]));
}
