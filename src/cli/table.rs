//! Tables and times for terminal output.

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

use crate::search::Hit;
use crate::store::Damage;

/// A table of hits: rank, file, start-end, score, track.
pub fn hits(hits: &[Hit]) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY);
    table.set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(["#", "file", "start - end", "score", "matched"]);
    for hit in hits {
        table.add_row([
            hit.rank.to_string(),
            printable(&hit.asset_name) + hit.damage.map_or("", of_damage),
            format!("{} - {}", clock(hit.span.start_secs), clock(hit.span.end_secs)),
            format!("{:.3}", hit.score),
            hit.matched.as_str().to_owned(),
        ]);
    }
    if let Some(column) = table.column_mut(3) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.to_string()
}

fn of_damage(damage: Damage) -> &'static str {
    match damage {
        Damage::Missing => " (the file is gone)",
        Damage::Changed => " (the file has changed)",
        Damage::Metadata => "",
    }
}

/// Formats seconds as `m:ss.s` or `h:mm:ss.s`.
pub fn clock(secs: f64) -> String {
    let tenths = (secs.max(0.0) * 10.0).round() as u64;
    let (hours, minutes, rest) = (tenths / 36_000, tenths / 600 % 60, tenths % 600);
    let (whole, tenth) = (rest / 10, rest % 10);
    if hours > 0 {
        format!("{hours}:{minutes:02}:{whole:02}.{tenth}")
    } else {
        format!("{minutes}:{whole:02}.{tenth}")
    }
}

/// A user's name with control characters escaped, so that it cannot control the terminal.
pub fn printable(name: &str) -> String {
    name.chars()
        .map(|c| if c.is_control() { c.escape_default().to_string() } else { c.to_string() })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_round_to_tenths() {
        assert_eq!(clock(0.0), "0:00.0");
        assert_eq!(clock(59.96), "1:00.0");
        assert_eq!(clock(3725.25), "1:02:05.3");
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(printable("a\u{1b}[2Jb"), "a\\u{1b}[2Jb");
    }
}
