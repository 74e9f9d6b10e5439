//! Schedules on the building's own clock: working days, hours, arrivals, lunch, cleaning.

use chrono::{DateTime, Datelike, NaiveDate, Offset, TimeZone};
use chrono_tz::Tz;

/// A moment on the clock on the wall.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Local {
    /// Days since 1970-01-01.
    pub(crate) day: i32,
    /// Minutes since midnight as the clock shows them.
    pub(crate) minute: i32,
}

/// Local time at a minute since 1970 UTC. The offset is looked up a quarter of an hour at a time,
/// always at the same quarters, so that the cut of a run makes no difference.
pub(crate) fn local(zone: Tz, minute: i64) -> Local {
    let quarter = minute.div_euclid(15) * 15;
    let utc = DateTime::from_timestamp(quarter * 60, 0).unwrap_or_default().naive_utc();
    let offset = zone.offset_from_utc_datetime(&utc).fix().local_minus_utc();
    let shifted = minute + i64::from(offset.div_euclid(60));
    Local { day: shifted.div_euclid(1_440) as i32, minute: shifted.rem_euclid(1_440) as i32 }
}

/// Days since 1970-01-01.
pub(crate) fn day_number(date: NaiveDate) -> i32 {
    date.num_days_from_ce() - 719_163
}

/// When people are there, in minutes since local midnight.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Schedule {
    /// Working days, Monday first.
    pub(crate) days: [bool; 7],
    /// Start of working hours.
    pub(crate) from: i32,
    /// End of working hours.
    pub(crate) to: i32,
    /// How long arriving takes, and leaving.
    pub(crate) ramp: i32,
    /// Middle of lunch; none without a break.
    pub(crate) lunch: Option<i32>,
    /// Longest lead with which the air handlers start.
    pub(crate) warmup: i32,
    /// When cleaners are in, with lights on.
    pub(crate) cleaning: Option<(i32, i32)>,
    /// Days off, as day numbers, sorted.
    pub(crate) holidays: Vec<i32>,
}

/// Part of the people that is out in the middle of lunch.
const LUNCH_DIP: f64 = 0.45;

impl Schedule {
    /// Whether people work on this day.
    pub(crate) fn works_on(&self, day: i32) -> bool {
        // 1970-01-01 was a Thursday.
        let weekday = (day + 3).rem_euclid(7) as usize;
        self.days[weekday] && self.holidays.binary_search(&day).is_err()
    }

    /// Whether working hours are on: what the air handlers and setpoints follow.
    pub(crate) fn is_occupied(&self, at: Local) -> bool {
        (self.from..self.to).contains(&at.minute) && self.works_on(at.day)
    }

    /// Minutes until working hours start, where that is within a day.
    pub(crate) fn until_occupied(&self, at: Local) -> Option<i32> {
        if at.minute < self.from && self.works_on(at.day) {
            return Some(self.from - at.minute);
        }
        let ahead = 1_440 - at.minute + self.from;
        (ahead <= 1_440 && self.works_on(at.day + 1)).then_some(ahead)
    }

    /// Part of the people who are there, 0 to 1, for people who come and go `shift` minutes later
    /// than planned.
    pub(crate) fn presence(&self, at: Local, shift: i32) -> f64 {
        if !self.works_on(at.day) {
            return 0.0;
        }
        let now = f64::from(at.minute - shift);
        let ramp = f64::from(self.ramp.max(1));
        let come = ((now - f64::from(self.from)) / ramp + 0.5).clamp(0.0, 1.0);
        let left = ((f64::from(self.to) - now) / ramp + 0.5).clamp(0.0, 1.0);
        let lunch = self.lunch.map_or(0.0, |noon| {
            (1.5 - (now - f64::from(noon)).abs() / 30.0).clamp(0.0, 1.0) * LUNCH_DIP
        });
        come.min(left) * (1.0 - lunch)
    }

    /// Whether cleaners are in the zone that is at `turn` (0 to 1) of their round.
    pub(crate) fn is_cleaned(&self, at: Local, turn: f64) -> bool {
        let Some((from, to)) = self.cleaning else { return false };
        let (start, length) = (f64::from(from), f64::from(to - from));
        // They are at two fifths of the zones at a time.
        let since = (f64::from(at.minute) - start) / length - 0.6 * turn;
        self.works_on(at.day) && (0.0..0.4).contains(&since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn office() -> Schedule {
        Schedule {
            days: [true, true, true, true, true, false, false],
            from: 420,
            to: 1_080,
            ramp: 60,
            lunch: Some(720),
            warmup: 120,
            cleaning: Some((1_140, 1_260)),
            holidays: vec![day_number(NaiveDate::from_ymd_opt(2026, 5, 1).unwrap())],
        }
    }

    fn at(month: u32, day: u32, minute: i32) -> Local {
        Local { day: day_number(NaiveDate::from_ymd_opt(2026, month, day).unwrap()), minute }
    }

    #[test]
    fn working_days_leave_out_weekends_and_holidays() {
        let works = |month, day| office().is_occupied(at(month, day, 600));
        assert!(works(4, 30) && works(5, 4));
        assert!(!works(5, 1) && !works(5, 2) && !works(5, 3));
        assert_eq!(office().until_occupied(at(5, 4, 400)), Some(20));
        assert_eq!(office().until_occupied(at(5, 3, 1_430)), Some(430));
        assert_eq!(office().until_occupied(at(4, 30, 1_430)), None);
    }

    #[test]
    fn people_come_leave_and_have_lunch() {
        let there = |minute| office().presence(at(5, 4, minute), 0);
        assert!(there(300) <= 0.0 && there(1_200) <= 0.0);
        assert!((there(420) - 0.5).abs() < 1e-9 && (there(600) - 1.0).abs() < 1e-9);
        assert!((there(720) - 0.55).abs() < 1e-9);
        assert!(office().presence(at(5, 2, 600), 0) <= 0.0);
    }

    #[test]
    fn the_clock_on_the_wall_changes_in_spring() {
        let minute = |text: &str| DateTime::parse_from_rfc3339(text).unwrap().timestamp() / 60;
        let clock = |text| local(chrono_tz::Europe::Berlin, minute(text)).minute;
        assert_eq!(clock("2026-03-29T00:59:00Z"), 119);
        assert_eq!(clock("2026-03-29T01:00:00Z"), 180);
    }
}
