//! Sizes as people write and read them.

const UNITS: [(&str, u64); 5] =
    [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// Bytes from text such as `512MiB` or `10GiB`; a bare number is bytes.
pub(crate) fn parse(text: &str) -> Result<u64, String> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let unit = unit.trim();
    let factor = match UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)) {
        Some((_, factor)) => *factor,
        None if unit.is_empty() => 1,
        None => {
            return Err(format!("{text:?} is no size; write it like 512MiB or 10GiB"));
        }
    };
    let bytes = number.parse::<u64>().ok().and_then(|number| number.checked_mul(factor));
    bytes.ok_or_else(|| format!("{text:?} is no size; write it like 512MiB or 10GiB"))
}

/// Bytes as text.
pub(crate) fn show(bytes: u64) -> String {
    let (unit, factor) = UNITS.into_iter().find(|(_, factor)| bytes >= *factor).unwrap_or(("B", 1));
    let tenths = bytes / (factor / 10).max(1);
    if factor == 1 || bytes.is_multiple_of(factor) {
        format!("{} {unit}", bytes / factor)
    } else {
        format!("{}.{} {unit}", bytes / factor, tenths % 10)
    }
}

#[cfg(test)]
mod tests {
    use super::{parse, show};

    #[test]
    fn sizes_are_read_as_they_are_written() {
        assert_eq!(parse("512MiB"), Ok(512 << 20));
        assert_eq!(parse("10 gib"), Ok(10 << 30));
        assert_eq!(parse("4096"), Ok(4096));
        for bad in ["", "MiB", "1.5GiB", "10GB", "-1", "99999999999999TiB"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert_eq!(show(512 << 20), "512 MiB");
        assert_eq!(show((3 << 30) / 2), "1.5 GiB");
        assert_eq!(show(0), "0 B");
    }
}
