//! Sizes of memory as people write them.

/// A number of bytes, with K, M or G for the powers of 1024.
pub(super) fn bytes(text: &str) -> Result<u64, String> {
    let expected = || "expected a number of bytes, or of K, M or G of them, as in 512M or 1.5G".to_string();
    let upper = text.trim().to_ascii_uppercase();
    let unit = upper
        .strip_suffix("IB")
        .or_else(|| upper.strip_suffix('B'))
        .unwrap_or(&upper);
    let (number, shift) = match unit.char_indices().last() {
        Some((at, 'K')) => (&unit[..at], 10),
        Some((at, 'M')) => (&unit[..at], 20),
        Some((at, 'G')) => (&unit[..at], 30),
        Some((at, 'T')) => (&unit[..at], 40),
        _ => (unit, 0),
    };
    let number: f64 = number.trim_end().parse().map_err(|_| expected())?;
    let bytes = number * (1u64 << shift) as f64;
    if !(1.0..u64::MAX as f64).contains(&bytes) {
        return Err(expected());
    }
    Ok(bytes as u64)
}

#[cfg(test)]
mod tests {
    use super::bytes;

    #[test]
    fn sizes() {
        for (text, expected) in [
            ("1", 1),
            ("4096", 4096),
            ("512M", 512 << 20),
            ("1.5g", 3 << 29),
            ("2GiB", 2 << 30),
            ("64 KB", 64 << 10),
        ] {
            assert_eq!(bytes(text), Ok(expected), "{text}");
        }
        for text in ["", "G", "-1", "0", "nan", "inf", "1e30", "12X", "1 2"] {
            assert!(bytes(text).is_err(), "{text}");
        }
    }
}
