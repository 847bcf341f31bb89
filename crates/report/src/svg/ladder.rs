//! The picture of a load line: a plate of the ship's side with the disc and a mark for each
//! weather, and the sea as high as today's load. A mark under water is a weather that today's load
//! does not get through.

use plimsoll_model::run::{Line, LoadUnit, Mark, Recovery, WeatherKind};

use super::Scale;
use crate::markup::{coordinate, escape, put};
use crate::number::{significant, times};
use crate::text::{clean, cut, width};
use crate::words::{
    Loads, against_today, descending, gives_way, gives_way_why, interval, load, recovery_sentence, requests, submerged,
};

/// Where things stand across the picture, px.
pub(crate) struct Across {
    pub(crate) width: f64,
    /// Left and right edge of the ship's side.
    plate: (f64, f64),
    disc: f64,
    radius: f64,
    staff: f64,
    tick: f64,
    labels: f64,
    /// Right ends of the columns with the load and the times today; none: under the name.
    loads: f64,
    times: Option<f64>,
    /// Characters of a name and of a note.
    name: usize,
    note: usize,
}

/// For pages and READMEs.
pub(crate) const WIDE: Across = Across {
    width: 860.0,
    plate: (62.0, 356.0),
    disc: 158.0,
    radius: 42.0,
    staff: 272.0,
    tick: 50.0,
    labels: 388.0,
    loads: 776.0,
    times: Some(840.0),
    name: 34,
    note: 68,
};

/// For phones.
pub(crate) const NARROW: Across = Across {
    width: 380.0,
    plate: (54.0, 160.0),
    disc: 90.0,
    radius: 20.0,
    staff: 132.0,
    tick: 20.0,
    labels: 178.0,
    loads: 374.0,
    times: None,
    name: 17,
    note: 32,
};

/// A drawing without its outer element.
pub(crate) struct Picture {
    pub(crate) height: f64,
    pub(crate) body: String,
}

const TOP: f64 = 54.0;
const BOTTOM: f64 = 34.0;
/// Height of a label: a name and a note.
const LABEL: f64 = 39.0;
/// Characters of a load that every name leaves room for.
const LOAD: usize = 10;

pub(crate) fn draw(line: &Line, across: &Across) -> Picture {
    let marks: Vec<&Mark> = descending(&line.marks).into_iter().filter(|mark| positive(mark.load)).collect();
    let height = (TOP + BOTTOM + LABEL * marks.len() as f64 + 20.0).clamp(330.0, 4000.0);
    let loads = Loads::of(line);
    let scale = scale(&marks, loads.today);
    let at = |load: f64| TOP + (1.0 - scale.share(load)) * (height - TOP - BOTTOM);
    let mut out = String::from("<g class=\"ladder\">\n");
    let today = positive(loads.today).then(|| at(loads.today));
    side(&scale, &at, today, loads.unit, across, height, &mut out);
    let calm = marks.iter().find(|mark| mark.weather.kind == WeatherKind::Calm).or(marks.first());
    disc(calm.map_or(height / 2.0, |mark| at(mark.load)), across, height, &mut out);
    if let Some(y) = today {
        sea(y, loads, across, height, &mut out);
    }
    staff(&marks, &at, across, &mut out);
    for mark in &marks {
        tick(mark, loads, &at, across, &mut out);
    }
    labels(&marks, loads, &at, across, height, &mut out);
    out.push_str("</g>\n");
    Picture { height, body: out }
}

fn positive(load: f64) -> bool {
    load.is_finite() && load > 0.0
}

/// All loads that are drawn, with a margin; at least a factor of four.
fn scale(marks: &[&Mark], today: f64) -> Scale {
    let mut loads: Vec<f64> = marks.iter().map(|mark| mark.load).chain([today]).collect();
    loads.extend(marks.iter().filter_map(|mark| match mark.recovery {
        Recovery::AtLoad { load, .. } => Some(load),
        _ => None,
    }));
    loads.retain(|load| positive(*load));
    let low = loads.iter().copied().fold(f64::INFINITY, f64::min);
    let high = loads.iter().copied().fold(0.0, f64::max);
    if high == 0.0 {
        return Scale::logarithmic(1.0, 10.0);
    }
    let (low, high) = (low.max(high * 1e-6) / 1.35, high * 1.12);
    let stretch = (4.0 / (high / low)).max(1.0).sqrt();
    Scale::logarithmic(low / stretch, high * stretch)
}

fn side(
    scale: &Scale,
    at: &dyn Fn(f64) -> f64,
    today: Option<f64>,
    unit: LoadUnit,
    across: &Across,
    height: f64,
    out: &mut String,
) {
    let (left, right) = across.plate;
    let (top, bottom) = (TOP - 34.0, height - 6.0);
    put!(
        out,
        "<path class=\"plate\" d=\"M{left} {top}H{right}V{bottom}H{left}Z\"/>\n<path class=\"seam\" d=\"M{left} {a}H{right}M{left} {b}H{right}\"/>\n\
         <path class=\"rivet\" d=\"M{c} {d}H{right}M{c} {e}H{right}\"/>\n",
        a = coordinate(top + (bottom - top) * 0.34),
        b = coordinate(top + (bottom - top) * 0.72),
        c = left + 8.0,
        d = coordinate(top + (bottom - top) * 0.34 + 7.0),
        e = coordinate(top + (bottom - top) * 0.72 + 7.0),
    );
    for tick in scale.ticks() {
        // Where today's load is written there is no room for another.
        if today.is_some_and(|today| (at(tick) - today).abs() < 20.0) {
            continue;
        }
        let y = coordinate(at(tick));
        put!(
            out,
            "<path class=\"draught\" d=\"M{left} {y}h10\"/><text class=\"axis\" x=\"{}\" y=\"{y}\" dy=\".35em\">{}</text>\n",
            left - 8.0,
            significant(tick, 2)
        );
    }
    let unit = match unit {
        LoadUnit::RequestsPerS => "load/s",
        LoadUnit::Users => "users",
    };
    put!(out, "<text class=\"axis\" x=\"{}\" y=\"{}\">{unit}</text>\n", left - 8.0, TOP - 24.0);
}

fn disc(y: f64, across: &Across, height: f64, out: &mut String) {
    let (x, r) = (across.disc, across.radius);
    // The whole disc stays on the plate, wherever the calm mark is.
    let cy = y.clamp(TOP - 30.0 + r, (height - 16.0 - r).max(TOP));
    let (cx, cy_) = (coordinate(x), coordinate(cy));
    put!(
        out,
        "<circle class=\"disc\" cx=\"{cx}\" cy=\"{cy_}\" r=\"{r}\"/>\n<path class=\"paint\" d=\"M{} {cy_}H{}\"/>\n",
        coordinate(x - r * 1.55),
        coordinate(x + r * 1.55),
    );
    if r > 30.0 {
        for (letter, side) in [("P", -1.0), ("L", 1.0)] {
            let (x, y) = (coordinate(x + side * r * 1.34), coordinate(cy - 9.0));
            put!(out, "<text class=\"letter\" x=\"{x}\" y=\"{y}\" aria-hidden=\"true\">{letter}</text>\n");
        }
    }
}

fn staff(marks: &[&Mark], at: &dyn Fn(f64) -> f64, across: &Across, out: &mut String) {
    if let (Some(first), Some(last)) = (marks.first(), marks.last()) {
        let x = coordinate(across.staff);
        put!(
            out,
            "<path class=\"staff\" d=\"M{x} {}V{}\"/>\n",
            coordinate(at(first.load) - 2.0),
            coordinate(at(last.load) + 2.0)
        );
    }
}

fn tick(mark: &Mark, loads: Loads, at: &dyn Fn(f64) -> f64, across: &Across, out: &mut String) {
    let sunk = if submerged(mark, loads) { " sunk" } else { "" };
    let (x, y) = (across.staff, at(mark.load));
    put!(out, "<g><title>{}</title>", escape(&title(mark, loads)));
    if positive(mark.low) && positive(mark.high) {
        let (top, bottom) = (at(mark.high), at(mark.low));
        put!(
            out,
            "<rect class=\"spread{sunk}\" x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\"/>",
            coordinate(x),
            coordinate(top),
            coordinate(across.tick),
            coordinate((bottom - top).max(0.0))
        );
    }
    put!(out, "<path class=\"tick{sunk}\" d=\"M{} {}h{}\"/>", coordinate(x), coordinate(y), coordinate(across.tick));
    if let Recovery::AtLoad { load, .. } = mark.recovery
        && positive(load)
    {
        let (x, end) = (x + across.tick * 0.6, at(load));
        put!(
            out,
            "<path class=\"back\" d=\"M{x} {}V{}\"/><path class=\"head\" d=\"M{x} {}l-5 -8h10Z\"/>",
            coordinate(y),
            coordinate(end - 6.0),
            coordinate(end),
            x = coordinate(x),
        );
    }
    out.push_str("</g>\n");
}

fn title(mark: &Mark, loads: Loads) -> String {
    let mut text = format!("{}: {} ({})", mark.weather.name, load(mark, loads), interval(mark));
    let factor = against_today(mark, loads);
    if !factor.is_nan() {
        text.push_str(&format!(", {} today's load", times(factor)));
    }
    if let Some(first) = &mark.first {
        text.push_str(&format!(". Gives way first: {}", gives_way_why(first)));
    }
    if let Some(requests) = requests(mark, loads) {
        text.push_str(&format!(". {requests}"));
    }
    if let Some(sentence) = recovery_sentence(mark, loads) {
        text.push_str(&format!(". {sentence}"));
    }
    text
}

fn sea(y: f64, loads: Loads, across: &Across, height: f64, out: &mut String) {
    let bottom = height - 6.0;
    let (left, right) = across.plate;
    put!(
        out,
        "<path class=\"over\" d=\"{}V{bottom}H{left}Z\"/>\n<path class=\"wave\" d=\"{}\"/>\n",
        wave(left, right, y),
        wave(left, right, y),
    );
    put!(
        out,
        "<text class=\"today\" x=\"{x}\" y=\"{}\" text-anchor=\"end\">today</text><text class=\"today\" x=\"{x}\" \
         y=\"{}\" text-anchor=\"end\">{}</text>\n",
        coordinate(y - 3.0),
        coordinate(y + 12.0),
        // The axis says what it counts, and there is no room to say it again.
        match loads.unit {
            LoadUnit::RequestsPerS => loads.short(loads.today),
            LoadUnit::Users => significant(loads.today, 3),
        },
        x = coordinate(left - 6.0),
    );
}

/// A swell along `y`.
fn wave(from: f64, to: f64, y: f64) -> String {
    let mut path = format!("M{} {}", coordinate(from), coordinate(y));
    let half: f64 = 14.0;
    let mut x = from;
    let mut up = true;
    while x < to {
        let step = half.min(to - x);
        path.push_str(&format!("q{} {} {} 0", coordinate(step / 2.0), if up { -4 } else { 4 }, coordinate(step)));
        x += step;
        up = !up;
    }
    path
}

fn labels(marks: &[&Mark], loads: Loads, at: &dyn Fn(f64) -> f64, across: &Across, height: f64, out: &mut String) {
    let wanted: Vec<f64> = marks.iter().map(|mark| at(mark.load)).collect();
    let places = spread_out(&wanted, LABEL, TOP - 8.0, height - BOTTOM + 6.0);
    // Today's load among the labels: a rule above the first that lies below it.
    if let Some(first) = marks.iter().position(|mark| submerged(mark, loads)) {
        let y = coordinate(places[first] - 15.5);
        put!(
            out,
            "<path class=\"under\" d=\"M{} {y}H{}\"/>\n",
            coordinate(across.labels),
            coordinate(across.times.unwrap_or(across.loads))
        );
    }
    for ((mark, y), tick) in marks.iter().zip(places).zip(wanted) {
        let sunk = if submerged(mark, loads) { " sunk-text" } else { "" };
        let from = across.staff + across.tick + 3.0;
        put!(
            out,
            "<path class=\"leader\" d=\"M{} {}H{}L{} {}h6\"/>\n",
            coordinate(from),
            coordinate(tick),
            coordinate(across.plate.1 - 4.0),
            coordinate(across.labels - 14.0),
            coordinate(y - 4.0)
        );
        let factor = against_today(mark, loads);
        let factor = if factor.is_nan() { String::new() } else { times(factor) };
        let load = load(mark, loads.bare());
        // A long load takes its room from the name.
        let room = across.name.saturating_sub(width(&load).saturating_sub(LOAD));
        let name = escape(&cut(&clean(&mark.weather.name), room));
        let (load, x) = (escape(&load), coordinate(across.labels));
        let note = match across.times {
            Some(_) => note(mark, loads),
            None => format!("{factor} today · {}", short_note(mark, loads)),
        };
        put!(
            out,
            "<text class=\"name{sunk}\" x=\"{x}\" y=\"{y}\">{name}</text><text class=\"load{sunk}\" x=\"{}\" \
             y=\"{y}\">{load}</text><text class=\"note\" x=\"{x}\" y=\"{}\">{}</text>\n",
            coordinate(across.loads),
            coordinate(y + 16.0),
            escape(&cut(&clean(&note), across.note)),
            y = coordinate(y),
        );
        if let Some(x) = across.times {
            put!(out, "<text class=\"times{sunk}\" x=\"{}\" y=\"{}\">{factor}</text>\n", coordinate(x), coordinate(y));
        }
    }
}

/// The second line of a label: what gives way, or that it does not come back.
fn note(mark: &Mark, loads: Loads) -> String {
    let first = mark.first.as_ref().map(gives_way);
    match (&mark.recovery, first) {
        (Recovery::AtLoad { load, .. }, _) => {
            format!("metastable: comes back only at {}", loads.words(*load))
        }
        (Recovery::Never { .. }, _) => "metastable: does not come back".into(),
        (Recovery::NotSeen { .. }, _) => "had not come back at the end".into(),
        (_, Some(first)) => format!("gives way first: {first}"),
        (_, None) => mark.weather.text.clone(),
    }
}

/// The same where there is little room.
fn short_note(mark: &Mark, loads: Loads) -> String {
    match (&mark.recovery, &mark.first) {
        (Recovery::AtLoad { load, .. }, _) => format!("back at {}", loads.words(*load)),
        (Recovery::Never { .. }, _) => "never back".into(),
        (Recovery::NotSeen { .. }, _) => "not back".into(),
        (_, Some(first)) => gives_way(first),
        (_, None) => String::new(),
    }
}

/// Places at least `gap` apart, as near to `wanted` (rising) as can be, from `top` to `bottom`.
fn spread_out(wanted: &[f64], gap: f64, top: f64, bottom: f64) -> Vec<f64> {
    // Blocks of labels that touch, each with its mean offset: two that overlap become one.
    let mut blocks: Vec<(f64, usize)> = Vec::new();
    for want in wanted {
        blocks.push((*want, 1));
        while let [.., (above, n), (below, m)] = blocks[..] {
            let reach = (n + m) as f64 / 2.0 * gap;
            if below - above >= reach {
                break;
            }
            let centre = (above * n as f64 + below * m as f64) / (n + m) as f64;
            blocks.truncate(blocks.len() - 2);
            blocks.push((centre, n + m));
        }
    }
    let mut places = Vec::with_capacity(wanted.len());
    for (centre, n) in blocks {
        let first = centre - (n - 1) as f64 / 2.0 * gap;
        places.extend((0..n).map(|i| first + i as f64 * gap));
    }
    // Push back in from the ends.
    let mut floor = top;
    for place in &mut places {
        *place = place.max(floor);
        floor = *place + gap;
    }
    let mut ceiling = bottom;
    for place in places.iter_mut().rev() {
        *place = place.min(ceiling);
        ceiling = *place - gap;
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_keep_their_distance_and_their_order() {
        let places = spread_out(&[10.0, 12.0, 14.0, 200.0, 390.0, 395.0], 40.0, 0.0, 400.0);
        assert!(places.windows(2).all(|pair| pair[1] - pair[0] >= 39.999), "{places:?}");
        assert!(places[0] >= 0.0 && places[5] <= 400.0);
        assert_eq!(places[3], 200.0);
    }
}
