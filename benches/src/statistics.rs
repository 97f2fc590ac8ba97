//! Medians: on a shared machine a mean measures the neighbours.

/// The median; the mean of the middle two of an even number. `None` of nothing.
#[must_use]
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        n if n % 2 == 1 => Some(sorted[middle]),
        _ => Some((sorted[middle - 1] + sorted[middle]) / 2.0),
    }
}

/// Pearson's correlation; 0 where one side does not vary.
#[must_use]
pub fn correlation(a: &[f32], b: &[f32]) -> f64 {
    let n = a.len().min(b.len()) as f64;
    let mean = |v: &[f32]| v.iter().map(|&x| f64::from(x)).fold(0.0, |s, x| s + x) / n;
    let (mean_a, mean_b) = (mean(a), mean(b));
    let (mut ab, mut aa, mut bb) = (0.0, 0.0, 0.0);
    for (&x, &y) in a.iter().zip(b) {
        let (x, y) = (f64::from(x) - mean_a, f64::from(y) - mean_b);
        ab += x * y;
        aa += x * x;
        bb += y * y;
    }
    if aa > 0.0 && bb > 0.0 {
        ab / (aa * bb).sqrt()
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0]), Some(3.0));
        assert_eq!(median(&[9.0, 1.0, 4.0]), Some(4.0));
        assert_eq!(median(&[9.0, 1.0, 4.0, 5.0]), Some(4.5));
    }

    #[test]
    fn correlations() {
        let a: Vec<f32> = (0..100).map(|i| (i * 37 % 101) as f32).collect();
        let scaled: Vec<f32> = a.iter().map(|x| x * 3.0 - 7.0).collect();
        let negated: Vec<f32> = a.iter().map(|x| -x).collect();
        let other: Vec<f32> = (0..100).map(|i| (i * 53 % 89) as f32).collect();
        assert!(correlation(&a, &scaled) > 0.999_999);
        assert!(correlation(&a, &negated) < -0.999_999);
        assert!(correlation(&a, &other).abs() < 0.5);
        assert_eq!(correlation(&a, &[1.0; 100]), 0.0);
    }
}
