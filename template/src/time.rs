//! The date and time that `strftime_now` prints: an input, as the engine has no clock.

/// A civil date and time without a zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CivilTime {
    /// Year, such as 2026.
    pub year: i32,
    /// Month, 1 to 12.
    pub month: u8,
    /// Day of the month, 1 to 31.
    pub day: u8,
    /// Hour, 0 to 23.
    pub hour: u8,
    /// Minute, 0 to 59.
    pub minute: u8,
    /// Second, 0 to 60.
    pub second: u8,
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const WEEKDAYS: [&str; 7] = [
    "Sunday",
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
];

impl CivilTime {
    /// The time that many seconds after 1970-01-01 00:00:00, counted without leap seconds; years outside
    /// 0 to 9999 are clamped.
    pub fn from_unix_seconds(seconds: i64) -> Self {
        // 0000-01-01 and 9999-12-31 23:59:59.
        let seconds = seconds.clamp(-62_167_219_200, 253_402_300_799);
        let (days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
        // Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms": civil_from_days.
        let z = days + 719_468;
        let era = z.div_euclid(146_097);
        let day_of_era = z.rem_euclid(146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted = (5 * day_of_year + 2) / 153;
        let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
        let year = year_of_era + era * 400 + i64::from(month <= 2);
        Self {
            year: year as i32,
            month: month as u8,
            day: (day_of_year - (153 * shifted + 2) / 5 + 1) as u8,
            hour: (rest / 3_600) as u8,
            minute: (rest / 60 % 60) as u8,
            second: (rest % 60) as u8,
        }
    }

    /// Days before this one in its year.
    fn day_of_year(self) -> i64 {
        const BEFORE: [i64; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
        let leap = self.year % 4 == 0 && (self.year % 100 != 0 || self.year % 400 == 0);
        let month = usize::from(self.month.clamp(1, 12)) - 1;
        BEFORE[month] + i64::from(self.day) - 1 + i64::from(leap && month > 1)
    }

    /// 0 for Sunday to 6 for Saturday.
    fn weekday(self) -> usize {
        let before = i64::from(self.year) - 1;
        let days = before * 365 + before.div_euclid(4) - before.div_euclid(100)
            + before.div_euclid(400)
            + self.day_of_year();
        // 0001-01-01 was a Monday.
        (days + 1).rem_euclid(7) as usize
    }

    /// ISO 8601 year and week.
    fn iso_week(self) -> (i32, i64) {
        let monday_based = (self.weekday() as i64 + 6) % 7;
        let week = (self.day_of_year() - monday_based + 10) / 7;
        let weeks_in = |year: i32| {
            let thursday =
                |y: i64| (y + y.div_euclid(4) - y.div_euclid(100) + y.div_euclid(400)).rem_euclid(7);
            let y = i64::from(year);
            if thursday(y) == 4 || thursday(y - 1) == 3 {
                53
            } else {
                52
            }
        };
        match week {
            0 => (self.year - 1, weeks_in(self.year - 1)),
            53 if weeks_in(self.year) == 52 => (self.year + 1, 1),
            week => (self.year, week),
        }
    }

    /// `strftime` in the C locale; a conversion that is not known stays as it is. glibc's flags `-`, `_`, `0`
    /// and `^` are understood.
    pub fn format(&self, format: &str) -> String {
        let mut out = String::new();
        let mut chars = format.chars().peekable();
        while let Some(c) = chars.next() {
            if c != '%' {
                out.push(c);
                continue;
            }
            let flag = chars.next_if(|c| matches!(c, '-' | '_' | '0' | '^' | '#'));
            match chars.next() {
                Some(conversion) => self.convert(flag, conversion, &mut out),
                None => {
                    out.push('%');
                    out.extend(flag);
                }
            }
        }
        out
    }

    fn convert(&self, flag: Option<char>, conversion: char, out: &mut String) {
        let twelve = (self.hour + 11) % 12 + 1;
        let weekday = self.weekday();
        let name = WEEKDAYS[weekday];
        let month = MONTHS[usize::from(self.month.clamp(1, 12)) - 1];
        let number = |value: i64, width: usize| match flag {
            Some('-') => value.to_string(),
            Some('_') => format!("{value:width$}"),
            _ => format!("{value:0width$}"),
        };
        let blank = |value: i64| match flag {
            Some('-') => value.to_string(),
            Some('0') => format!("{value:02}"),
            _ => format!("{value:2}"),
        };
        let day_of_year = self.day_of_year();
        let text = match conversion {
            'Y' => self.year.to_string(),
            'G' => self.iso_week().0.to_string(),
            'C' => number(i64::from(self.year.div_euclid(100)), 2),
            'y' => number(i64::from(self.year.rem_euclid(100)), 2),
            'g' => number(i64::from(self.iso_week().0.rem_euclid(100)), 2),
            'm' => number(self.month.into(), 2),
            'd' => number(self.day.into(), 2),
            'e' => blank(self.day.into()),
            'H' => number(self.hour.into(), 2),
            'I' => number(twelve.into(), 2),
            'k' => blank(self.hour.into()),
            'l' => blank(twelve.into()),
            'M' => number(self.minute.into(), 2),
            'S' => number(self.second.into(), 2),
            'f' => "000000".into(),
            'j' => number(day_of_year + 1, 3),
            'u' => (if weekday == 0 { 7 } else { weekday }).to_string(),
            'w' => weekday.to_string(),
            'U' => number((day_of_year + 7 - weekday as i64) / 7, 2),
            'W' => number((day_of_year + 7 - (weekday as i64 + 6) % 7) / 7, 2),
            'V' => number(self.iso_week().1, 2),
            'B' => month.into(),
            'b' | 'h' => month[..3].into(),
            'A' => name.into(),
            'a' => name[..3].into(),
            'p' => (if self.hour < 12 { "AM" } else { "PM" }).into(),
            'P' => (if self.hour < 12 { "am" } else { "pm" }).into(),
            'D' | 'x' => self.format("%m/%d/%y"),
            'F' => self.format("%Y-%m-%d"),
            'T' | 'X' => self.format("%H:%M:%S"),
            'R' => self.format("%H:%M"),
            'r' => self.format("%I:%M:%S %p"),
            'c' => self.format("%a %b %e %H:%M:%S %Y"),
            'n' => "\n".into(),
            't' => "\t".into(),
            // No zone.
            'z' | 'Z' => String::new(),
            '%' => "%".into(),
            other => {
                out.push('%');
                out.extend(flag);
                out.push(other);
                return;
            }
        };
        if flag == Some('^') {
            out.push_str(&text.to_uppercase())
        } else {
            out.push_str(&text)
        }
    }
}
