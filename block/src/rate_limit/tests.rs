use super::*;
use proptest::prelude::*;

/// Sends requests as fast as they are let through, on a clock of its own, until `until`; returns when
/// each went.
fn run(limiter: &RateLimiter, start: Instant, until: Duration, length_bytes: u64) -> Vec<Duration> {
    let mut now = start;
    let mut sent = Vec::new();
    while now < start + until {
        match limiter.admit(now) {
            Ok(()) => {
                limiter.charge(length_bytes);
                sent.push(now - start);
            }
            Err(wait) => {
                assert!(!wait.is_zero());
                now += wait;
            }
        }
    }
    sent
}

#[test]
fn a_burst_goes_at_once_and_then_the_rate_holds() {
    let start = Instant::now();
    let limit = RateLimit {
        operations: Some(Rate {
            per_second: 100,
            burst: 20,
        }),
        ..RateLimit::default()
    };
    let limiter = RateLimiter::new(limit, start);
    let sent = run(&limiter, start, Duration::from_secs(2), 1 << 20);
    let at_once = sent.iter().filter(|at| at.is_zero()).count();
    assert_eq!(at_once, 20);
    assert!((218..=221).contains(&sent.len()), "{}", sent.len());
    // What is saved in a pause is a burst, no more.
    let later = start + Duration::from_secs(3600);
    let sent = run(&limiter, later, Duration::from_millis(1), 0);
    assert_eq!(sent.len(), 20);
}

#[test]
fn a_request_larger_than_the_burst_goes_and_is_paid_for() {
    let start = Instant::now();
    let limit = RateLimit {
        bytes: Some(Rate {
            per_second: 1000,
            burst: 10,
        }),
        ..RateLimit::default()
    };
    let limiter = RateLimiter::new(limit, start);
    let sent = run(&limiter, start, Duration::from_secs(10), 1000);
    assert!((10..=11).contains(&sent.len()), "{sent:?}");
    assert!(sent[0].is_zero());
    assert!(sent[1] >= Duration::from_millis(990));
}

#[test]
fn the_tighter_of_two_limits_counts() {
    let start = Instant::now();
    let limit = RateLimit {
        bytes: Some(Rate::new(4096 * 50)),
        operations: Some(Rate::new(1000)),
    };
    let sent = run(
        &RateLimiter::new(limit, start),
        start,
        Duration::from_secs(4),
        4096,
    );
    assert!((200..=212).contains(&sent.len()), "{}", sent.len());
    assert!(!limit.is_unlimited() && RateLimit::default().is_unlimited());
}

#[test]
fn a_clock_that_stands_or_goes_back_gives_nothing() {
    let start = Instant::now() + Duration::from_secs(1);
    let limit = RateLimit {
        operations: Some(Rate {
            per_second: 1,
            burst: 1,
        }),
        ..RateLimit::default()
    };
    let limiter = RateLimiter::new(limit, start);
    limiter.charge(0);
    assert!(limiter.admit(start).is_err());
    assert!(limiter.admit(start - Duration::from_secs(1)).is_err());
    assert!(limiter.admit(start).is_err());
    assert!(limiter.admit(start + Duration::from_secs(2)).is_ok());
}

proptest! {
    /// Whatever the rates and lengths, no time passes in which more goes than the burst, the rate times
    /// the time and the last request; and all that waits goes on.
    #[test]
    fn the_average_holds(
        per_second in prop_oneof![1_u64..100_000, Just(u64::MAX)],
        burst in prop_oneof![1_u64..10_000, Just(u64::MAX)],
        lengths in prop::collection::vec(0_u64..50_000, 1..60),
    ) {
        let start = Instant::now();
        let limit = RateLimit { bytes: Some(Rate { per_second, burst }), operations: None };
        let limiter = RateLimiter::new(limit, start);
        let (mut now, mut sum) = (start, 0_u128);
        for length in lengths {
            if let Err(wait) = limiter.admit(now) {
                now += wait;
                prop_assert!(limiter.admit(now).is_ok());
            }
            let earned = (now - start).as_nanos() * u128::from(per_second) / SECOND;
            prop_assert!(sum <= u128::from(burst) + earned, "{sum} {earned}");
            limiter.charge(length);
            sum += u128::from(length);
        }
    }
}
