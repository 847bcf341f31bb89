//! The page of a load line.

use plimsoll_model::run::{Cost, GrownLine, Line, Mark, Run};

use super::flow::{self, Shown};
use super::{page, probes, run};
use crate::markup::{escape, put};
use crate::number::{ratio, times, usd};
use crate::svg::{NARROW, WIDE, draw};
use crate::topology::Topology;
use crate::words::{
    Loads, against_today, analytic, effort, gives_way, gives_way_why, headline, interval, load, metastable,
    predictions, quiet, recovers, recovery_sentence, requests, submerged, today, waived, what_a_mark_is, why,
};

pub(super) fn write(line: &Line, topology: &Topology) -> String {
    let mut body = String::new();
    head(line, &mut body);
    ladder(line, &mut body);
    page::notices(
        line.partial.then_some("The search was interrupted: later marks are missing."),
        None,
        &line.warnings,
        &mut body,
    );
    marks(line, &mut body);
    predicted(line, &mut body);
    remarks(line, &mut body);
    overview(line, topology, &mut body);
    growth(line, &mut body);
    cost(&line.cost, &mut body);
    weathers(line, topology, &mut body);
    notes(line, &mut body);
    page::document(&format!("{}: load line", line.system), &body)
}

fn head(line: &Line, out: &mut String) {
    put!(
        out,
        "<header><p class=\"kicker\">Load line</p><h1>{}</h1><p class=\"lead\">{}</p></header>\n",
        escape(&line.system),
        escape(&headline(line))
    );
}

fn ladder(line: &Line, out: &mut String) {
    out.push_str("<figure class=\"hero\">");
    for (class, across) in [("wide", &WIDE), ("narrow", &NARROW)] {
        let picture = draw(line, across);
        put!(
            out,
            "<svg class=\"{class}\" viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{}\">{}</svg>\n",
            across.width,
            picture.height,
            escape(&format!("Marks of {}: {} The table below has the values.", line.system, headline(line))),
            picture.body
        );
    }
    out.push_str(
        "<figcaption>Each mark is the largest load that the system carries in one weather, on a logarithmic scale. The \
         sea stands as high as today's load: a mark under water is a weather that today's load does not get through. The \
         width of a mark's shade is the interval that it lies in.</figcaption></figure>\n",
    );
}

fn marks(line: &Line, out: &mut String) {
    out.push_str(
        "<section><h2>Marks</h2><div class=\"scroll\"><table class=\"marks\"><thead><tr><th>weather</th><th \
         class=\"n\">load</th><th class=\"n\">between</th><th class=\"n\">today</th><th>gives way first</th>\
         <th>recovers</th></tr></thead><tbody>\n",
    );
    let loads = Loads::of(line);
    for (at, mark) in line.marks.iter().enumerate() {
        let tone = tone(mark, loads);
        let first = mark.first.as_ref().map_or("nothing seen".into(), gives_way);
        let why = mark.first.as_ref().map_or(String::new(), why);
        put!(
            out,
            "<tr><td><a href=\"#w{at}\">{}</a><div class=\"why\">{}</div></td><td class=\"n big {tone}\">{}</td><td \
             class=\"n dim\">{}</td><td class=\"n {tone}\">{}</td><td>{}<div class=\"why\">{}</div></td><td \
             class=\"{}\">{}</td></tr>\n",
            escape(&mark.weather.name),
            escape(&mark.weather.text),
            escape(&load(mark, loads)),
            interval(mark),
            times(against_today(mark, loads)),
            escape(&first),
            escape(&why),
            if metastable(mark) { "bad" } else { "" },
            escape(&recovers(mark, loads)),
        );
    }
    out.push_str("</tbody></table></div></section>\n");
}

fn tone(mark: &Mark, loads: Loads) -> &'static str {
    if submerged(mark, loads) {
        "bad"
    } else if against_today(mark, loads) < 1.3 || metastable(mark) {
        "warn"
    } else {
        "good"
    }
}

/// Where the load goes, at the first mark that kept its runs: calm, as a rule.
fn overview(line: &Line, topology: &Topology, out: &mut String) {
    let Some(mark) = line.marks.iter().find(|mark| mark.at_mark.is_some() || mark.past_mark.is_some()) else {
        return;
    };
    put!(
        out,
        "<section><h2>Where the load goes</h2><p>At the mark and just past it, in this weather: {}. Colour is the busy \
         share of a component's busiest resource; hover for its figures.</p>\n",
        escape(&mark.weather.name)
    );
    flow::draw(topology, &both(mark), out);
    legend(out);
    out.push_str("</section>\n");
}

pub(super) fn legend(out: &mut String) {
    out.push_str("<p class=\"scale\" aria-hidden=\"true\">");
    for (class, text) in [
        ("u0", "under 40%"),
        ("u1", "40 to 70%"),
        ("u2", "70 to 85%"),
        ("u3", "85 to 95%"),
        ("u4", "95% busy and more"),
    ] {
        put!(out, "<span><i class=\"{class}\"></i>{text}</span>");
    }
    out.push_str("</p>\n");
}

fn both(mark: &Mark) -> Vec<Shown<'_>> {
    [("At the mark", &mark.at_mark), ("Past the mark", &mark.past_mark)]
        .into_iter()
        .filter_map(|(label, run)| run.as_deref().map(|run| Shown { label, run }))
        .collect()
}

/// What was predicted beside what was measured.
fn predicted(line: &Line, out: &mut String) {
    let rows = predictions(line);
    if rows.is_empty() {
        return;
    }
    out.push_str(
        "<section><h2>Predicted and measured</h2><div class=\"scroll\"><table><thead><tr><th>weather</th><th \
         class=\"n\">predicted</th><th class=\"n\">measured</th><th class=\"n\">error</th></tr></thead><tbody>\n",
    );
    for (weather, predicted, measured, error) in rows {
        put!(
            out,
            "<tr><td>{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{error}</td></tr>\n",
            escape(weather),
            escape(&predicted),
            escape(&measured),
        );
    }
    out.push_str("</tbody></table></div></section>\n");
}

/// What stays down, objectives that set no mark, and where closed forms and simulation differ.
fn remarks(line: &Line, out: &mut String) {
    let list = |title: &str, items: Vec<(&str, String)>, out: &mut String| {
        if items.is_empty() {
            return;
        }
        put!(out, "<section><h2>{title}</h2><ul>");
        for (weather, text) in items {
            put!(out, "<li><b>{}:</b> {}</li>", escape(weather), escape(&text));
        }
        out.push_str("</ul></section>\n");
    };
    let metastable = line.marks.iter().filter(|mark| metastable(mark));
    let metastable = metastable
        .filter_map(|mark| Some((mark.weather.name.as_str(), recovery_sentence(mark, Loads::of(line))?)))
        .collect();
    list("Metastable: stays down after the fault has ended", metastable, out);
    let waivers =
        line.marks.iter().flat_map(|mark| mark.waived.iter().map(|one| (mark.weather.name.as_str(), waived(one))));
    list("Objectives that do not set a mark", waivers.collect(), out);
    let disputed = line.marks.iter().filter_map(|mark| {
        let one = mark.analytic.as_ref().filter(|analytic| !analytic.agrees)?;
        Some((mark.weather.name.as_str(), analytic(one)))
    });
    list("Where the closed forms and the simulation differ", disputed.collect(), out);
}

fn growth(line: &Line, out: &mut String) {
    if line.growth.is_empty() {
        return;
    }
    out.push_str(
        "<section><h2>Grown</h2><p>The same weathers for the system scaled as its file says. A cell is the load that it \
         carries, and how many times the load that it was grown for that is: from 1x on it holds.</p><div class=\"scroll\"><table \
         class=\"growth\"><thead><tr><th>weather</th><th class=\"n\">today's system</th>",
    );
    let loads = Loads::of(line);
    for grown in &line.growth {
        let wanted = loads.words(grown.factor * loads.today);
        put!(out, "<th class=\"n\">for {} the load, {wanted}</th>", times(grown.factor));
    }
    out.push_str("</tr></thead><tbody>\n");
    for mark in &line.marks {
        put!(out, "<tr><th scope=\"row\">{}</th>", escape(&mark.weather.name));
        growth_cell(Some(mark), 1.0, loads, out);
        for grown in &line.growth {
            let same = grown.marks.iter().find(|other| other.weather.name == mark.weather.name);
            growth_cell(same, grown.factor, loads, out);
        }
        out.push_str("</tr>\n");
    }
    put!(out, "<tr><th scope=\"row\">cost a month</th><td class=\"n\">{}</td>", usd(line.cost.month_usd));
    for grown in &line.growth {
        put!(out, "<td class=\"n\">{}</td>", usd(grown.cost.month_usd));
    }
    out.push_str("</tr></tbody></table></div><ul>");
    for grown in &line.growth {
        put!(out, "<li><b>{}:</b> {}</li>", times(grown.factor), escape(&changes(grown)));
    }
    out.push_str("</ul></section>\n");
}

fn changes(grown: &GrownLine) -> String {
    if grown.changes.is_empty() { "nothing was changed".into() } else { grown.changes.join(", ") }
}

fn growth_cell(mark: Option<&Mark>, wanted: f64, loads: Loads, out: &mut String) {
    let Some(mark) = mark else {
        out.push_str("<td class=\"n dim\">not tried</td>");
        return;
    };
    let reached = ratio(against_today(mark, loads), wanted);
    let (class, sign) = match reached {
        reached if reached.is_nan() => ("", ""),
        reached if reached >= 1.0 => ("good", "✓ "),
        _ => ("bad", "✗ "),
    };
    let title = mark.first.as_ref().map_or(String::new(), |first| format!("gives way first: {}", gives_way_why(first)));
    put!(
        out,
        "<td class=\"n {class}\" title=\"{}\">{sign}{} <span class=\"dim\">{}</span></td>",
        escape(&title),
        escape(&load(mark, loads)),
        times(reached)
    );
}

fn cost(cost: &Cost, out: &mut String) {
    put!(out, "<section><h2>Cost</h2><p><b>{} a month</b>", usd(cost.month_usd));
    if let Some(per_million) = cost.per_million_usd {
        put!(out, ", {} a million requests at the calm mark", usd(per_million));
    }
    out.push_str(".</p>");
    let total: f64 = cost.parts.iter().map(|(_, usd)| usd).filter(|usd| usd.is_finite()).sum();
    if !cost.parts.is_empty() {
        let mut parts: Vec<&(String, f64)> = cost.parts.iter().collect();
        parts.sort_by(|a, b| b.1.total_cmp(&a.1));
        out.push_str("<table class=\"cost\"><tbody>");
        for (name, amount) in parts {
            let share = (ratio(*amount, total) * 100.0).clamp(0.0, 100.0);
            put!(
                out,
                "<tr><th scope=\"row\">{}</th><td class=\"n\">{}</td><td class=\"bars\"><span class=\"meter\"><i class=\"u1\" \
                 style=\"width:{}%\"></i></span></td></tr>",
                escape(name),
                usd(*amount),
                crate::markup::coordinate(share)
            );
        }
        out.push_str("</tbody></table>");
    }
    out.push_str("</section>\n");
}

/// One folded section a weather: the search, and the runs at the mark and past it.
fn weathers(line: &Line, topology: &Topology, out: &mut String) {
    if line.marks.is_empty() {
        return;
    }
    let loads = Loads::of(line);
    out.push_str("<section><h2>Each weather</h2>\n");
    for (at, mark) in line.marks.iter().enumerate() {
        put!(
            out,
            "<details class=\"weather\" id=\"w{at}\"><summary><span class=\"name\">{}</span><span class=\"load {}\">{}</span>\
             <span class=\"dim\">{}</span></summary>\n",
            escape(&mark.weather.name),
            tone(mark, loads),
            escape(&load(mark, loads)),
            escape(&mark.first.as_ref().map_or(String::new(), gives_way)),
        );
        sentences(mark, loads, out);
        probes::write(mark, loads, out);
        let shown = both(mark);
        if !shown.is_empty() {
            flow::draw(topology, &shown, out);
        }
        out.push_str("<div class=\"sides\">\n");
        for shown in &shown {
            side(shown.label, shown.run, out);
        }
        out.push_str("</div></details>\n");
    }
    out.push_str("</section>\n");
}

fn sentences(mark: &Mark, loads: Loads, out: &mut String) {
    let mut items: Vec<(&str, String)> = vec![("What happens", mark.weather.text.clone())];
    if let Some(requests) = requests(mark, loads) {
        items.push(("Requests", requests));
    }
    if let Some(fails) = &mark.fails {
        items.push(("Fails first", fails.clone()));
    }
    if let Some(first) = &mark.first {
        let owner = first.owner.as_ref().map_or(String::new(), |owner| format!(" Owner: {owner}."));
        items.push(("Gives way first", format!("{}.{owner}", gives_way_why(first))));
    }
    if let Some(sentence) = recovery_sentence(mark, loads) {
        items.push(("Recovery", sentence));
    }
    items.extend(mark.waived.iter().map(|one| ("Not counted", waived(one))));
    if let Some(one) = &mark.analytic {
        items.push(("Closed forms", analytic(one)));
    }
    if let Some(one) = &mark.quiet {
        items.push(("Confirmed", quiet(one)));
    }
    out.push_str("<dl class=\"facts\">");
    for (term, text) in items.iter().filter(|(_, text)| !text.is_empty()) {
        put!(out, "<dt>{term}</dt><dd>{}</dd>", escape(text));
    }
    out.push_str("</dl>\n");
}

fn side(label: &str, run_: &Run, out: &mut String) {
    let offered = run_
        .subjects
        .iter()
        .find(|subject| subject.kind == plimsoll_model::run::SubjectKind::All)
        .and_then(|all| all.figure("offered_per_s"))
        .map_or(String::new(), |figure| format!(", {} offered", crate::number::rate(figure.mean)));
    put!(out, "<div class=\"side run\"><h3>{label}{offered}</h3>\n");
    run::charts(run_, out);
    run::verdicts(run_, out);
    run::figures(run_, run::Width::Half, out);
    super::timeline::table(run_, out);
    out.push_str("</div>\n");
}

fn notes(line: &Line, out: &mut String) {
    let objectives = if line.objectives.is_empty() { "none".to_owned() } else { line.objectives.join("; ") };
    let stated = if line.objectives_stated { "" } else { " (the default: the file states none)" };
    put!(
        out,
        "<section><h2>How to read this</h2><dl class=\"facts\"><dt>Objectives</dt><dd>{}{stated}</dd><dt>A mark</dt><dd>Is \
         {}</dd><dt>Today's load</dt><dd>{}</dd><dt>Effort</dt><dd>{}.</dd></dl>\n",
        escape(&objectives),
        escape(what_a_mark_is(line)),
        escape(&today(line)),
        effort(line),
    );
    page::glossary(out);
    put!(
        out,
        "</section><footer>Seed {}, system file {}, plimsoll {}.</footer>\n",
        line.seed,
        escape(&line.system_hash),
        escape(&line.plimsoll)
    );
}
