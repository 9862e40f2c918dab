//! Durations and sizes as texts with units: `1m30s`, `500ms`, `1MiB`.

use std::time::Duration;

const DURATION_UNITS: [(&str, u128); 7] = [
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

const SIZE_UNITS: [(&str, u128); 5] =
    [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// Parses one or more numbers with units, without spaces; fractions are allowed: `1.5s`. `None` for
/// anything else.
#[must_use]
pub fn parse_duration(text: &str) -> Option<Duration> {
    let nanos = parse_sum(text, &DURATION_UNITS)?;
    u64::try_from(nanos).ok().map(Duration::from_nanos)
}

/// Parses a size into bytes. Units are binary: `KiB`, `MiB`, `GiB`, `TiB`, and `B`.
pub(crate) fn parse_size(text: &str) -> Option<u64> {
    u64::try_from(parse_sum(text, &SIZE_UNITS)?).ok()
}

/// Writes a duration in its largest whole units, such as `1m30s`.
#[must_use]
pub fn format_duration(duration: Duration) -> String {
    format_sum(duration.as_nanos(), &DURATION_UNITS, "0s")
}

/// Writes a size in its largest whole units, such as `1MiB`.
pub(crate) fn format_size(bytes: u64) -> String {
    format_sum(u128::from(bytes), &SIZE_UNITS, "0B")
}

fn parse_sum(text: &str, units: &[(&str, u128)]) -> Option<u128> {
    let mut rest = text;
    let mut sum = 0_u128;
    while !rest.is_empty() {
        let number_end = rest.find(|character: char| character.is_ascii_alphabetic())?;
        let (number, after) = rest.split_at(number_end);
        let unit_end =
            after.find(|character: char| !character.is_ascii_alphabetic()).unwrap_or(after.len());
        let (unit, next) = after.split_at(unit_end);
        let factor = units.iter().find(|(name, _)| *name == unit)?.1;
        sum = sum.checked_add(parse_product(number, factor)?)?;
        rest = next;
    }
    (!text.is_empty()).then_some(sum)
}

/// Multiplies a decimal number exactly; what is smaller than one is dropped.
fn parse_product(number: &str, factor: u128) -> Option<u128> {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let (whole, fraction) = match number.split_once('.') {
        None => (number, "0"),
        Some(parts) => parts,
    };
    // Nine digits reach from seconds to nanoseconds, and keep the product far from overflowing.
    if !digits(whole) || !digits(fraction) || whole.len() > 18 || fraction.len() > 9 {
        return None;
    }
    let power = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    let whole: u128 = whole.parse().ok()?;
    let fraction: u128 = fraction.parse().ok()?;
    whole.checked_mul(factor)?.checked_add(fraction * factor / power)
}

fn format_sum(mut rest: u128, units: &[(&str, u128)], zero: &str) -> String {
    let mut text = String::new();
    for (unit, factor) in units {
        if rest >= *factor {
            text.push_str(&format!("{}{unit}", rest / factor));
            rest %= factor;
        }
    }
    if text.is_empty() { zero.to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_duration(text: &str, expected: Option<u64>) {
        assert_eq!(parse_duration(text), expected.map(Duration::from_nanos), "{text:?}");
    }

    fn check_size(text: &str, expected: Option<u64>) {
        assert_eq!(parse_size(text), expected, "{text:?}");
    }

    #[test]
    fn parses_durations() {
        check_duration("500ms", Some(500_000_000));
        check_duration("1m30s", Some(90_000_000_000));
        check_duration("1.5s", Some(1_500_000_000));
        check_duration("0s", Some(0));
        check_duration("2h", Some(7_200_000_000_000));
        for text in
            ["", "s", "1", "1 s", "-1s", "1s1", "1.s", ".5s", "1sec", "9999999999999999d", "1.2.3s"]
        {
            check_duration(text, None);
        }
    }

    #[test]
    fn parses_sizes() {
        check_size("0B", Some(0));
        check_size("1MiB", Some(1 << 20));
        check_size("1.5KiB", Some(1536));
        for text in ["", "1", "1MB", "1M", "1 MiB", "99999999TiB"] {
            check_size(text, None);
        }
    }

    #[test]
    fn writes_what_it_reads() {
        for text in ["1d2h3m4s5ms6us7ns", "500ms", "0s", "1m30s"] {
            assert_eq!(parse_duration(text).map(format_duration).as_deref(), Some(text));
        }
        for text in ["1GiB1MiB", "0B", "1023B"] {
            assert_eq!(parse_size(text).map(format_size).as_deref(), Some(text));
        }
    }
}
