//! Tables for people, aligned as Go's `tabwriter` does with runc's settings.

/// Cells at least this wide, and at least so far apart.
const WIDTH: usize = 12;
const GAP: usize = 3;

/// Rows of cells as lines. The last column is as wide as it is.
pub fn columns<const N: usize>(rows: impl IntoIterator<Item = [String; N]>) -> String {
    let rows: Vec<_> = rows.into_iter().collect();
    let width = |column: usize| {
        let longest = rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        (longest + GAP).max(WIDTH)
    };
    let widths: Vec<_> = (0..N).map(width).collect();
    let mut out = String::new();
    for row in &rows {
        for (cell, width) in row[..N - 1].iter().zip(&widths) {
            out.push_str(&format!("{cell:width$}"));
        }
        out.push_str(&row[N - 1]);
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_twelve_wide_or_three_apart() {
        let rows = [["ID", "OWNER"], ["a-long-container", "root"]].map(|row| row.map(String::from));
        assert_eq!(columns(rows.clone()), "ID                 OWNER\na-long-container   root\n");
        assert_eq!(columns([rows[0].clone()]), "ID          OWNER\n");
    }
}
