//! The Gregorian calendar between seconds since 1970 and what a clock shows, for the years 0 to 9999.
#![expect(
    clippy::arithmetic_side_effects,
    reason = "years are bounded before anything is computed, and all fits into 64 bits by far"
)]

const SECONDS_PER_DAY: i64 = 86_400;
/// Days in 400 years, after which the calendar repeats itself.
const DAYS_PER_ERA: i64 = 146_097;
/// Days from 0000-03-01 to 1970-01-01. Counting from March puts the leap day at a year's end.
const DAYS_TO_EPOCH: i64 = 719_468;
/// 0000-01-01 00:00:00 and 9999-12-31 23:59:59.
const FIRST_SECOND: i64 = -62_167_219_200;
const LAST_SECOND: i64 = 253_402_300_799;

/// A moment as a calendar and a clock show it, in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct DateTime {
    /// 0 to 9999.
    pub(super) year: u16,
    /// 1 to 12.
    pub(super) month: u8,
    /// 1 to 31.
    pub(super) day: u8,
    /// 0 to 23.
    pub(super) hour: u8,
    /// 0 to 59.
    pub(super) minute: u8,
    /// 0 to 59.
    pub(super) second: u8,
}

impl DateTime {
    /// The moment `seconds` after 1970-01-01 00:00:00, or the nearest one that four digits can show.
    pub(super) fn from_seconds(seconds: i64) -> Self {
        let seconds = seconds.clamp(FIRST_SECOND, LAST_SECOND);
        let days = seconds.div_euclid(SECONDS_PER_DAY) + DAYS_TO_EPOCH;
        let second_of_day = seconds.rem_euclid(SECONDS_PER_DAY);
        let era = days.div_euclid(DAYS_PER_ERA);
        let day_of_era = days.rem_euclid(DAYS_PER_ERA);
        // Leap days before this day: one each 4 years (1460 days and one), less one each 100.
        let year_of_era =
            (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        // From March on, months have 31 30 31 30 31 days over and over: 153 in five.
        let month_from_march = (5 * day_of_year + 2) / 153;
        let month = (month_from_march + 2) % 12 + 1;
        Self {
            year: narrow(era * 400 + year_of_era + i64::from(month <= 2)),
            month: narrow(month),
            day: narrow(day_of_year - (153 * month_from_march + 2) / 5 + 1),
            hour: narrow(second_of_day / 3600),
            minute: narrow(second_of_day / 60 % 60),
            second: narrow(second_of_day % 60),
        }
    }

    /// Seconds since 1970-01-01 00:00:00. Days that the month does not have run into the next.
    pub(super) fn to_seconds(self) -> i64 {
        let month_from_march = (i64::from(self.month) + 9) % 12;
        let year = i64::from(self.year) - i64::from(self.month <= 2);
        let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
        let day_of_year = (153 * month_from_march + 2) / 5 + i64::from(self.day) - 1;
        let day_of_era = 365 * year_of_era + year_of_era / 4 - year_of_era / 100 + day_of_year;
        let days = era * DAYS_PER_ERA + day_of_era - DAYS_TO_EPOCH;
        days * SECONDS_PER_DAY
            + i64::from(self.hour) * 3600
            + i64::from(self.minute) * 60
            + i64::from(self.second)
    }

    /// The same with each part in its range.
    pub(super) fn nearest(self) -> Self {
        Self {
            year: self.year.min(9999),
            month: self.month.clamp(1, 12),
            day: self.day.clamp(1, 31),
            hour: self.hour.min(23),
            minute: self.minute.min(59),
            second: self.second.min(59),
        }
    }

    /// 1 for Sunday to 7 for Saturday.
    pub(super) fn day_of_week(self) -> u8 {
        // 1970-01-01 was a Thursday.
        narrow((self.to_seconds().div_euclid(SECONDS_PER_DAY) + 4).rem_euclid(7) + 1)
    }
}

/// Every caller's value fits: it is a part of a date.
fn narrow<T: TryFrom<i64> + Default>(value: i64) -> T {
    T::try_from(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn date(year: u16, month: u8, day: u8) -> DateTime {
        DateTime {
            year,
            month,
            day,
            hour: 0,
            minute: 0,
            second: 0,
        }
    }

    #[test]
    fn known_dates() {
        for (seconds, expected, day_of_week) in [
            (0, date(1970, 1, 1), 5),
            (951_782_400, date(2000, 2, 29), 3),
            (951_868_800, date(2000, 3, 1), 4),
            (4_107_542_400, date(2100, 3, 1), 2),
            (FIRST_SECOND, date(0, 1, 1), 7),
            (1_785_542_400, date(2026, 8, 1), 7),
        ] {
            assert_eq!(DateTime::from_seconds(seconds), expected);
            assert_eq!(expected.to_seconds(), seconds);
            assert_eq!(expected.day_of_week(), day_of_week);
        }
        let last = DateTime {
            hour: 23,
            minute: 59,
            second: 59,
            ..date(9999, 12, 31)
        };
        assert_eq!(DateTime::from_seconds(i64::MAX), last);
        assert_eq!(last.to_seconds(), LAST_SECOND);
        assert_eq!(DateTime::from_seconds(i64::MIN), date(0, 1, 1));
    }

    #[test]
    fn each_day_follows_the_one_before() {
        let mut before = DateTime::from_seconds(FIRST_SECOND);
        for day in 1..=2 * DAYS_PER_ERA {
            let now = DateTime::from_seconds(FIRST_SECOND + day * SECONDS_PER_DAY);
            let is_leap = before.year.is_multiple_of(400)
                || before.year.is_multiple_of(4) && !before.year.is_multiple_of(100);
            let days = match before.month {
                2 if is_leap => 29,
                2 => 28,
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            let expected = match (before.month, before.day == days) {
                (_, false) => date(before.year, before.month, before.day + 1),
                (12, true) => date(before.year + 1, 1, 1),
                (_, true) => date(before.year, before.month + 1, 1),
            };
            assert_eq!(now, expected);
            assert_eq!(now.to_seconds(), FIRST_SECOND + day * SECONDS_PER_DAY);
            before = now;
        }
    }

    proptest! {
        #[test]
        fn there_and_back(seconds in FIRST_SECOND..=LAST_SECOND) {
            prop_assert_eq!(DateTime::from_seconds(seconds).to_seconds(), seconds);
        }

        #[test]
        fn nonsense_becomes_a_date(year: u16, month: u8, day: u8, hour: u8, minute: u8, second: u8) {
            let nearest = DateTime { year, month, day, hour, minute, second }.nearest();
            let again = DateTime::from_seconds(nearest.to_seconds());
            prop_assert!(again.month.abs_diff(nearest.month) <= 1 || nearest.month == 12);
        }
    }
}
