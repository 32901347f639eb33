//! Tables on the terminal.

use crate::statistics::Median;

/// One contender.
pub(crate) struct Line<'a> {
    pub(crate) name: &'a str,
    pub(crate) cells: Vec<String>,
}

pub(crate) fn print(title: &str, columns: &[&str], lines: &[Line<'_>]) {
    println!("{title}\n");
    print!("  {:<34}", "");
    columns.iter().for_each(|column| print!("{column:>22}"));
    println!();
    for line in lines {
        print!("  {:<34}", line.name);
        line.cells.iter().for_each(|cell| print!("{cell:>22}"));
        println!();
    }
    println!();
}

/// A ratio, with its interval.
pub(crate) fn ratio(median: Median) -> String {
    match median.between {
        Some([from, to]) => format!("{:.3} [{from:.3}, {to:.3}]", median.value),
        None => format!("{:.3}", median.value),
    }
}

/// A time that is given in milliseconds.
pub(crate) fn time(millis: f64) -> String {
    if millis < 1.0 { format!("{:.1} µs", millis * 1e3) } else { format!("{millis:.3} ms") }
}
