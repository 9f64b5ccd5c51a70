//! Tables without borders, as wide as the terminal at most.

use owo_colors::{AnsiColors, OwoColorize};

/// The narrowest that a column is cut to; below that it is left out.
const NARROWEST: usize = 12;
/// How far columns are apart.
const GAP: usize = 2;

/// A table in the making.
pub(crate) struct Table {
    headers: Vec<&'static str>,
    rows: Vec<Vec<Field>>,
    expendable: Vec<usize>,
}

/// What stands in a row and a column.
pub(crate) struct Field {
    text: String,
    color: Option<AnsiColors>,
}

impl Field {
    /// A text in colour.
    pub(crate) fn colored(text: impl Into<String>, color: Option<AnsiColors>) -> Self {
        Self { text: text.into(), color }
    }
}

impl<T: Into<String>> From<T> for Field {
    /// The text; a dash where there is none.
    fn from(text: T) -> Self {
        let text: String = text.into();
        Self { text: if text.is_empty() { "-".to_owned() } else { text }, color: None }
    }
}

impl Table {
    /// A table with these headers.
    pub(crate) fn new(headers: &[&'static str]) -> Self {
        Self { headers: headers.to_vec(), rows: Vec::new(), expendable: Vec::new() }
    }

    /// The same; where it is too wide, these columns are cut and then left out, the first named first.
    pub(crate) fn expendable(mut self, headers: &[&str]) -> Self {
        let place = |name: &&str| self.headers.iter().position(|header| header == name);
        self.expendable = headers.iter().filter_map(place).collect();
        self
    }

    /// Adds a row, with a field for each header.
    pub(crate) fn row(&mut self, fields: impl IntoIterator<Item = Field>) {
        self.rows.push(fields.into_iter().collect());
    }

    /// The table in at most `width` characters, if its columns allow that; as wide as it is without a `width`.
    pub(crate) fn render(mut self, width: Option<u16>) -> String {
        if let Some(width) = width {
            self.fit(usize::from(width));
        }
        let headers = self.headers.iter().map(|header| Field::from(*header)).collect();
        let widths: Vec<usize> = (0..self.headers.len()).map(|column| self.width(column)).collect();
        let line = |fields: &Vec<Field>| {
            let last = fields.len() - 1;
            let shown = fields.iter().zip(&widths).enumerate().map(|(column, (field, width))| {
                let padding = if column == last { 0 } else { width + GAP - field.text.chars().count() };
                let padding = " ".repeat(padding);
                match field.color {
                    Some(color) => format!("{}{padding}", field.text.color(color)),
                    None => format!("{}{padding}", field.text),
                }
            });
            shown.collect::<String>()
        };
        let lines: Vec<String> = std::iter::once(&headers).chain(&self.rows).map(line).collect();
        lines.join("\n")
    }

    fn fit(&mut self, width: usize) {
        let mut left_out = Vec::new();
        for column in self.expendable.clone() {
            let all: usize = (0..self.headers.len())
                .filter(|index| !left_out.contains(index))
                .map(|index| self.width(index) + GAP)
                .sum();
            let Some(excess) = all.checked_sub(width + GAP).filter(|excess| *excess > 0) else { break };
            let own = self.width(column);
            if own >= excess + NARROWEST {
                self.cut(column, own - excess);
                break;
            }
            left_out.push(column);
        }
        let keep = |index: usize| !left_out.contains(&index);
        let mut index = 0..;
        self.headers.retain(|_| index.next().is_some_and(keep));
        for row in &mut self.rows {
            let mut index = 0..;
            row.retain(|_| index.next().is_some_and(keep));
        }
    }

    fn width(&self, column: usize) -> usize {
        let fields =
            self.rows.iter().filter_map(|row| row.get(column)).map(|field| field.text.chars().count());
        fields.chain([self.headers[column].len()]).max().unwrap_or(0)
    }

    fn cut(&mut self, column: usize, width: usize) {
        for field in self.rows.iter_mut().filter_map(|row| row.get_mut(column)) {
            if field.text.chars().count() > width {
                field.text = field.text.chars().take(width - 1).chain(['…']).collect();
            }
        }
    }
}

/// Keys and values below one another, the values aligned. Values of several lines stay in their column.
pub(crate) fn aligned(pairs: &[(String, String)]) -> String {
    let width = pairs.iter().map(|(key, _)| key.len()).max().unwrap_or(0);
    let lines = pairs.iter().flat_map(|(key, value)| {
        let mut key = Some(key);
        value
            .lines()
            .map(move |line| match key.take() {
                Some(key) => format!("{:<1$}  {line}", format!("{key}:"), width + 1),
                None => format!("{:<1$}  {line}", "", width + 1),
            })
            .collect::<Vec<_>>()
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(&["NAME", "URL", "COMMAND"]).expendable(&["COMMAND", "URL"]);
        table.row(["dev".into(), "http://localhost:8000".into(), "npm run dev -- --port 8000".into()]);
        table.row(["web".into(), "".into(), Field::colored("sh", Some(AnsiColors::Green))]);
        table
    }

    #[test]
    fn as_wide_as_it_is_without_a_terminal() {
        let plain = anstream::adapter::strip_str(&table().render(None)).to_string();
        insta::assert_snapshot!(plain, @"
        NAME  URL                    COMMAND
        dev   http://localhost:8000  npm run dev -- --port 8000
        web   -                      sh
        ");
    }

    #[test]
    fn cut_and_then_left_out_on_a_narrow_terminal() {
        let plain = |width| anstream::adapter::strip_str(&table().render(Some(width))).to_string();
        insta::assert_snapshot!(plain(44), @"
        NAME  URL                    COMMAND
        dev   http://localhost:8000  npm run dev --…
        web   -                      sh
        ");
        insta::assert_snapshot!(plain(30), @"
        NAME  URL
        dev   http://localhost:8000
        web   -
        ");
        insta::assert_snapshot!(plain(10), @"
        NAME
        dev
        web
        ");
        for line in plain(44).lines() {
            assert!(line.chars().count() <= 44, "{line}");
        }
    }

    #[test]
    fn pairs_with_a_value_of_two_lines() {
        let pairs = [("name".into(), "dev".into()), ("ports".into(), "A  8000\nB  8001".into())];
        insta::assert_snapshot!(aligned(&pairs), @"
        name:   dev
        ports:  A  8000
                B  8001
        ");
    }
}
