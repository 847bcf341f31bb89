//! One self-contained page: inline style, drawings and a little script, nothing from the network.
//! Everything that a file named is escaped.

mod chart;
mod flow;
mod line;
mod page;
mod prediction;
mod probes;
mod run;
mod timeline;

use plimsoll_model::run::{Line, Prediction, Run};
use plimsoll_model::system::System;

use crate::markup::{escape, put};
use crate::topology::Topology;
use crate::words::{gives_way_why, plural, provenance};

/// The page of a load line and of the system that it is of.
pub fn line(line: &Line, system: &System) -> String {
    line_on(line, &Topology::of(system))
}

/// The page of a load line over a topology.
pub fn line_on(line: &Line, topology: &Topology) -> String {
    line::write(line, topology)
}

/// The page of a run and of the system that it is of.
pub fn run(run: &Run, system: &System) -> String {
    run_on(run, &Topology::of(system))
}

/// The page of a prediction: measured and predicted, second by second.
pub fn prediction(prediction: &Prediction) -> String {
    prediction::write(prediction)
}

/// The page of a run over a topology.
pub fn run_on(run: &Run, topology: &Topology) -> String {
    let mut body = String::new();
    let failed = run.verdicts.iter().filter(|verdict| !verdict.passed).count() as u64;
    let (class, outcome) = match (run.verdicts.len() as u64, failed) {
        (0, _) => ("", "Nothing was expected of it.".to_owned()),
        (all, 0) => ("good", format!("{} met.", plural(all, "expectation", "expectations"))),
        (all, failed) => ("bad", format!("{failed} of {} missed.", plural(all, "expectation", "expectations"))),
    };
    put!(
        &mut body,
        "<header><p class=\"kicker\">{}</p><h1>{}</h1><p class=\"lead\"><b class=\"{class}\">{outcome}</b>{}</p><p \
         class=\"dim\">{}.</p></header>\n",
        escape(&run.system),
        escape(&run.experiment),
        run.bottlenecks
            .first()
            .map_or(String::new(), |first| format!(" Gives way first: {}.", escape(&gives_way_why(first)))),
        escape(&provenance(run)),
    );
    let partial = run.partial.then_some("It was interrupted: its figures cover what was done.");
    page::notices(partial, run.invalid.as_deref(), &run.warnings, &mut body);
    run::verdicts(run, &mut body);
    if !topology.nodes.is_empty() {
        body.push_str("<section><h2>Where the load goes</h2><p>Colour is the busy share of a component's busiest resource; hover for its figures.</p>\n");
        flow::draw(topology, &[flow::Shown { label: "", run }], &mut body);
        line::legend(&mut body);
        body.push_str("</section>\n");
    }
    body.push_str("<section class=\"run\"><h2>Over time</h2>\n");
    run::charts(run, &mut body);
    timeline::table(run, &mut body);
    body.push_str("</section>\n<section><h2>Figures</h2>\n");
    run::figures(run, run::Width::Full, &mut body);
    run::components_table(run, &mut body);
    page::glossary(&mut body);
    body.push_str("</section>\n");
    crate::postmortem::section(run, &mut body);
    put!(
        &mut body,
        "<footer>Seed {}, system file {}, plimsoll {}.</footer>\n",
        run.seed,
        escape(&run.system_hash),
        escape(&run.plimsoll)
    );
    page::document(&format!("{}: {}", run.system, run.experiment), &body)
}
