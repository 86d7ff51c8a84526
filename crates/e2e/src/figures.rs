//! What is told of many measurements.

/// The value below which so many of a hundred lie, by the nearest rank: of few values, 99 is the
/// largest.
///
/// # Panics
/// When there are none.
pub fn rank(values: &[f64], percent: usize) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values[(values.len() * percent).div_ceil(100).max(1) - 1]
}
