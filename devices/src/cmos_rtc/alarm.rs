//! When the clock's alarm is due.

/// One byte of an alarm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AlarmField {
    Any,
    Exactly(u8),
    /// Something that no clock shows.
    Never,
}

impl AlarmField {
    fn matches(self, value: i64) -> bool {
        match self {
            Self::Any => true,
            Self::Exactly(wanted) => i64::from(wanted) == value,
            Self::Never => false,
        }
    }
}

/// A time of day, some of whose parts may be any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Alarm {
    hour: AlarmField,
    minute: AlarmField,
    second: AlarmField,
}

impl Alarm {
    pub(super) fn new(hour: AlarmField, minute: AlarmField, second: AlarmField) -> Self {
        Self {
            hour,
            minute,
            second,
        }
    }

    /// The first second after `after`, both in seconds since the epoch, at which the alarm is due; within
    /// a day if it ever is. Takes a few dozen steps.
    pub(super) fn next_after(self, after: i64) -> Option<i64> {
        if [self.hour, self.minute, self.second].contains(&AlarmField::Never) {
            return None;
        }
        let second_of_day = after.rem_euclid(86_400);
        let midnight = after.saturating_sub(second_of_day);
        let this_hour = second_of_day.div_euclid(3600);
        let this_minute = second_of_day.div_euclid(60).rem_euclid(60);
        // The same hour comes again tomorrow, for the minutes of it that are over.
        for hour in this_hour..=this_hour.saturating_add(24) {
            if !self.hour.matches(hour.rem_euclid(24)) {
                continue;
            }
            let is_this_hour = hour == this_hour;
            for minute in if is_this_hour { this_minute } else { 0 }..60 {
                if !self.minute.matches(minute) {
                    continue;
                }
                let first_second = if is_this_hour && minute == this_minute {
                    second_of_day.rem_euclid(60).saturating_add(1)
                } else {
                    0
                };
                if let Some(second) = (first_second..60).find(|second| self.second.matches(*second))
                {
                    return Some(
                        hour.saturating_mul(3600)
                            .saturating_add(minute.saturating_mul(60))
                            .saturating_add(second)
                            .saturating_add(midnight),
                    );
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn field(end: u8) -> impl Strategy<Value = AlarmField> {
        prop_oneof![
            Just(AlarmField::Any),
            (0..end).prop_map(AlarmField::Exactly)
        ]
    }

    #[test]
    fn never_is_never() {
        for place in 0..3 {
            let mut fields = [AlarmField::Any; 3];
            fields[place] = AlarmField::Never;
            assert_eq!(
                Alarm::new(fields[0], fields[1], fields[2]).next_after(0),
                None
            );
        }
    }

    proptest! {
        /// Agrees with looking at each second of the next day.
        #[test]
        fn is_the_first_match(after in -100_000i64..1_000_000_000, hour in field(24), minute in field(60), second in field(60)) {
            let expected = (after + 1..=after + 86_400).find(|moment| {
                let of_day = moment.rem_euclid(86_400);
                hour.matches(of_day / 3600) && minute.matches(of_day / 60 % 60) && second.matches(of_day % 60)
            });
            prop_assert_eq!(Alarm::new(hour, minute, second).next_after(after), expected);
        }
    }
}
