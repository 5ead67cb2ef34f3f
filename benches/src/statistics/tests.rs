use super::Samples;

fn samples(values: &[f64]) -> Samples {
    values.iter().copied().collect()
}

#[test]
fn the_median_is_the_middle() {
    assert_eq!(samples(&[9.0, 1.0, 2.0]).median(), 2.0);
    assert_eq!(samples(&[9.0, 1.0, 2.0, 4.0]).median(), 3.0);
    assert!(samples(&[]).median().is_nan());
}

#[test]
fn extremes_are_those_of_the_values() {
    let values = samples(&[3.0, -1.0, 2.0]);
    assert_eq!((values.min(), values.max()), (-1.0, 3.0));
    assert!(samples(&[]).min().is_nan());
}

#[test]
fn a_slow_round_does_not_change_a_ratio() {
    let fast = samples(&[1.0, 100.0, 1.0]);
    let slow = samples(&[2.0, 200.0, 2.0]);
    assert_eq!(slow.ratio_to(&fast), 2.0);
}

#[test]
fn the_best_of_two_is_taken_in_each_round() {
    let one: Samples = [1.0, 5.0].into_iter().collect();
    let other: Samples = [2.0, 4.0].into_iter().collect();
    assert_eq!(one.larger_of_each(&other), [2.0, 5.0].into_iter().collect());
}
