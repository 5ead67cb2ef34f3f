use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use super::*;

/// A vCPU thread without a vCPU: it counts instead of running a guest.
fn start() -> (Arc<VcpuControl>, Arc<AtomicU64>, thread::JoinHandle<()>) {
    let control = Arc::new(VcpuControl::default());
    let counter = Arc::new(AtomicU64::new(0));
    let thread = thread::spawn({
        let (control, counter) = (Arc::clone(&control), Arc::clone(&counter));
        move || {
            while control.stand_until_run() {
                while !control.wants_attention() {
                    counter.fetch_add(1, Ordering::SeqCst);
                }
            }
            control.ended();
        }
    });
    (control, counter, thread)
}

fn wait_for_progress(counter: &AtomicU64) {
    let before = counter.load(Ordering::SeqCst);
    while counter.load(Ordering::SeqCst) == before {
        thread::yield_now();
    }
}

#[test]
fn a_vcpu_that_was_told_to_stand_does_nothing_until_it_is_told_to_run() {
    let (control, counter, thread) = start();
    for _ in 0..200 {
        control.run();
        wait_for_progress(&counter);
        control.request_stand();
        control.wait_until_it_stands();
        let stands_at = counter.load(Ordering::SeqCst);
        thread::yield_now();
        assert_eq!(counter.load(Ordering::SeqCst), stands_at);
    }
    control.request_end();
    thread.join().unwrap();
}

#[test]
fn the_last_wish_wins_however_fast_wishes_change() {
    let (control, counter, thread) = start();
    for _ in 0..2000 {
        control.run();
        control.request_stand();
    }
    control.wait_until_it_stands();
    control.request_stand();
    control.run();
    wait_for_progress(&counter);
    control.request_end();
    thread.join().unwrap();
    // After the end nobody waits in vain, and nothing starts it again.
    control.run();
    control.wait_until_it_stands();
}

#[test]
fn a_vcpu_whose_guest_ended_stands_until_it_is_told_to_run_again() {
    let control = Arc::new(VcpuControl::default());
    let (ended, again) = std::sync::mpsc::channel();
    let thread = thread::spawn({
        let control = Arc::clone(&control);
        move || {
            while control.stand_until_run() {
                control.stand_by_itself();
                ended.send(()).unwrap();
            }
            control.ended();
        }
    });
    for _ in 0..3 {
        control.run();
        again.recv().unwrap();
        control.wait_until_it_stands();
    }
    control.request_end();
    thread.join().unwrap();
}
