//! Lists of CPUs or nodes as the kernel writes them: `0-3,8,10-11`.

/// Far more CPUs than Linux knows.
const MOST: usize = 1 << 16;

/// Reads a list; `None` where it is none. Beside numbers and ranges the kernel knows `0-31:2/8`, the first two of every
/// eight.
pub(crate) fn parse_list(text: &str) -> Option<Vec<usize>> {
    let mut out = Vec::new();
    for part in text.trim().split(',').filter(|part| !part.is_empty()) {
        let (range, pattern) = part.split_once(':').unwrap_or((part, "1/1"));
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        let (used, group) = pattern.split_once('/')?;
        let (used, group): (usize, usize) = (used.parse().ok()?, group.parse().ok()?);
        if last >= MOST || first > last || used == 0 || used > group {
            return None;
        }
        out.extend((first..=last).filter(|cpu| (cpu - first) % group < used));
    }
    Some(out)
}

/// The same, written: for reports.
pub(crate) fn write_list(cpus: &[usize]) -> String {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for &cpu in cpus {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == cpu => *last = cpu,
            _ => runs.push((cpu, cpu)),
        }
    }
    let runs = runs.iter().map(|(first, last)| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    });
    runs.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_and_written() {
        assert_eq!(parse_list("0-2,5\n"), Some(vec![0, 1, 2, 5]));
        assert_eq!(parse_list("0-7:2/4,9"), Some(vec![0, 1, 4, 5, 9]));
        assert_eq!(parse_list(""), Some(vec![]));
        for wrong in ["0-99999999999", "x", "3-1", "0-7:0/4", "0-7:3/2", "0-7:2", "-1"] {
            assert_eq!(parse_list(wrong), None, "{wrong}");
        }
        assert_eq!(write_list(&[0, 1, 2, 5, 7, 8]), "0-2,5,7-8");
    }
}
