//! Repeated measurements, told by their middle and their ends: one figure would hide the noise.

/// Median, least and greatest of some values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Spread {
    /// The middle one, or the mean of the two in the middle.
    pub(super) median: f64,
    /// The least.
    pub(super) least: f64,
    /// The greatest.
    pub(super) greatest: f64,
}

impl Spread {
    /// None of no values.
    pub(super) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (least, greatest) = (*values.first()?, *values.last()?);
        let upper = *values.get(values.len() / 2)?;
        let lower = *values.get((values.len() - 1) / 2)?;
        Some(Self { median: (lower + upper) / 2.0, least, greatest })
    }

    /// "median (least..greatest)" with so many decimals.
    pub(super) fn show(&self, decimals: usize) -> String {
        format!("{:.decimals$} ({:.decimals$}..{:.decimals$})", self.median, self.least, self.greatest)
    }
}

/// [`Spread::show`] of values that may be none.
pub(super) fn show(values: impl IntoIterator<Item = f64>, decimals: usize) -> String {
    Spread::of(values).map_or_else(|| "-".to_owned(), |spread| spread.show(decimals))
}

/// Prints rows as columns; the first row is the heading.
pub(super) fn print_table(rows: &[Vec<String>]) {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line += &format!("{cell:<width$}  ");
        }
        println!("{}", line.trim_end());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(values: &[f64], expected: &str) {
        assert_eq!(show(values.iter().copied(), 1), expected);
    }

    #[test]
    fn the_middle_and_the_ends() {
        check(&[], "-");
        check(&[2.0], "2.0 (2.0..2.0)");
        check(&[3.0, 1.0, 2.0], "2.0 (1.0..3.0)");
        check(&[4.0, 1.0, 2.0, 3.0], "2.5 (1.0..4.0)");
    }
}
