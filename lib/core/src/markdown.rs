//! Markdown, for the pages of the documentation that programs write.

/// The first line of every page that is written by a program.
pub const HEADER: &str = "<!-- Written by `make generate`; do not edit. -->\n\n";

/// A table.
pub fn table<const N: usize>(head: [&str; N], rows: &[[String; N]]) -> String {
    let mut text = row(head.map(str::to_owned));
    text += &row(["---"; N].map(str::to_owned));
    for cells in rows {
        text += &row(cells.clone());
    }
    text
}

fn row<const N: usize>(cells: [String; N]) -> String {
    format!("| {} |\n", cells.map(|cell| cell.replace('|', "\\|")).join(" | "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_in_cells_are_escaped() {
        let rows = [["a|b".to_owned(), "`c`".to_owned()]];
        assert_eq!(table(["x", "y"], &rows), "| x | y |\n| --- | --- |\n| a\\|b | `c` |\n");
    }
}
