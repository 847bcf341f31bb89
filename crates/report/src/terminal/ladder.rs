//! The marks as on a ship's side: one rung a weather, as long as the load that it carries, against
//! today's load.

use plimsoll_model::run::{Line, Mark};

use super::sheet::{Sheet, Span, Tone, span};
use crate::number::times;
use crate::text::{clean, cut, width};
use crate::words::{self, Loads, against_today, descending, load, metastable, submerged};

/// Columns of a weather's name; a longer one is cut here, and whole in the table.
const NAME: usize = 28;

/// From this ratio of the highest to the lowest load on, lengths are logarithmic.
const LOG_FROM: f64 = 24.0;

pub(super) fn ladder(line: &Line, sheet: &mut Sheet) {
    let marks = descending(&line.marks);
    if marks.is_empty() {
        return;
    }
    let style = sheet.style;
    let names = marks.iter().map(|mark| width(&clean(&mark.weather.name))).max().unwrap_or(0).min(NAME);
    // What stands to the right of a rung: ` 2,910/s  9.7x  metastable`.
    let loads = Loads::of(line);
    let labels: Vec<String> = marks.iter().map(|mark| label(mark, loads)).collect();
    let tail = labels.iter().map(|label| width(label)).max().unwrap_or(0);
    let room = sheet.width().saturating_sub(names + tail + 6).max(8);
    let scale = Scale::new(&marks, loads.today, room);
    let today = scale.map(loads.today);

    if let Some(today) = today {
        let text = format!("today {}", words::today(line));
        // Centred over today's line where there is room for that.
        let before = (names + 4 + today).saturating_sub(width(&text) / 2);
        sheet.row(&[span(" ".repeat(before), Tone::Plain), span(text, Tone::Strong)]);
    }
    for (mark, label) in marks.iter().zip(labels) {
        let name = cut(&clean(&mark.weather.name), names).into_owned();
        let tone = tone(mark, loads);
        let mut spans =
            vec![span(format!("  {name}{}  ", " ".repeat(names.saturating_sub(width(&name)))), Tone::Plain)];
        spans.extend(rung(scale.map(mark.load).unwrap_or(0), today, tone, style.unicode, room));
        spans.push(span(label, tone));
        sheet.row(&spans);
    }
    if scale.log {
        sheet.row(&[span(format!("{}lengths are logarithmic", " ".repeat(names + 4)), Tone::Dim)]);
    }
}

/// The colour of a mark: below today's load, close above it, well above it.
pub(super) fn tone(mark: &Mark, loads: Loads) -> Tone {
    if submerged(mark, loads) {
        Tone::Bad
    } else if against_today(mark, loads) < 1.3 || metastable(mark) {
        Tone::Warn
    } else {
        Tone::Good
    }
}

fn label(mark: &Mark, loads: Loads) -> String {
    let factor = against_today(mark, loads);
    let factor = if factor.is_nan() { String::new() } else { format!("  {}", times(factor)) };
    let note = if metastable(mark) { "  metastable" } else { "" };
    format!(" {}{factor}{note}", load(mark, loads))
}

/// `──────┼────┤` with today's line through it, and today's line alone where the rung ends before.
fn rung(length: usize, today: Option<usize>, tone: Tone, unicode: bool, room: usize) -> Vec<Span> {
    let (bar, end, cross, post) = if unicode { ("─", "┤", "┼", "╎") } else { ("-", "|", "+", ":") };
    let mut spans = Vec::new();
    for at in 0..=room {
        let (text, tone) = match (at, today) {
            (at, _) if at == length => (end, tone),
            (at, Some(today)) if at == today => (if at < length { cross } else { post }, Tone::Strong),
            (at, _) if at < length => (bar, tone),
            (at, today) if today.is_some_and(|today| at < today) => (" ", Tone::Plain),
            _ => break,
        };
        match spans.last_mut() {
            Some(Span { text: run, tone: last }) if *last == tone => run.push_str(text),
            _ => spans.push(span(text, tone)),
        }
    }
    spans
}

/// From loads to columns.
struct Scale {
    low: f64,
    high: f64,
    room: usize,
    log: bool,
}

impl Scale {
    fn new(marks: &[&Mark], today: f64, room: usize) -> Self {
        let loads = marks.iter().map(|mark| mark.load).chain([today]).filter(|load| usable(*load));
        let (low, high) = loads.fold((f64::MAX, 0.0f64), |(low, high), load| (low.min(load), high.max(load)));
        Scale { low, high, room, log: high / low > LOG_FROM }
    }

    /// The column of a load; none for one that has no place.
    fn map(&self, load: f64) -> Option<usize> {
        if !usable(load) {
            return None;
        }
        let share = if self.log {
            // The lowest load keeps a rung that can be seen.
            let floor = self.low / 2.0;
            libm::log10(load / floor) / libm::log10(self.high / floor)
        } else {
            load / self.high
        };
        Some((share.clamp(0.0, 1.0) * self.room as f64).round() as usize)
    }
}

fn usable(load: f64) -> bool {
    load.is_finite() && load > 0.0
}
