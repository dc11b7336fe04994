//! Points in time as Go prints them: RFC 3339 in UTC, `2006-01-02T15:04:05.999999999Z`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// To the second, as in log lines. Times before 1970 are shown as 1970.
pub fn rfc3339(time: SystemTime) -> String {
    format!("{}Z", seconds(since_epoch(time)))
}

/// With as many digits of the nanoseconds as needed (Go's `RFC3339Nano`), as in states.
pub fn rfc3339_nano(time: SystemTime) -> String {
    let since = since_epoch(time);
    let fraction = format!(".{:09}", since.subsec_nanos());
    format!("{}{}Z", seconds(since), fraction.trim_end_matches('0').trim_end_matches('.'))
}

fn since_epoch(time: SystemTime) -> Duration {
    time.duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn seconds(since: Duration) -> String {
    let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = date(days);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}", second / 3600, second / 60 % 60, second % 60)
}

/// The Gregorian date of a day counted from 1970-01-01.
///
/// Counts years from 1 March of the year 0: the leap day is then the last day of a year, and a month's first day
/// is a linear function of the month (153 days in five months).
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64, nanos: u32) -> SystemTime {
        UNIX_EPOCH + Duration::new(seconds, nanos)
    }

    #[test]
    fn dates_around_leap_days() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_735_689_599, "2024-12-31T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(rfc3339(at(seconds, 999)), text);
        }
    }

    #[test]
    fn a_fraction_has_no_trailing_zeros() {
        assert_eq!(rfc3339_nano(at(0, 0)), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339_nano(at(0, 120_000_000)), "1970-01-01T00:00:00.12Z");
        assert_eq!(rfc3339_nano(at(0, 1)), "1970-01-01T00:00:00.000000001Z");
    }
}
