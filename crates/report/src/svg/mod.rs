//! Pictures that stand alone: for a README, a slide or a ticket.

mod ladder;
mod scale;

use plimsoll_model::run::Line;

use crate::markup::{escape, put};
use crate::words::headline;

pub(crate) use ladder::{NARROW, WIDE, draw};
pub(crate) use scale::{Scale, time_step};

/// The marks as on a ship's side against today's load. It follows the reader's light or dark
/// preference, and needs no font and no network.
pub fn ladder(line: &Line) -> String {
    let picture = draw(line, &WIDE);
    let (width, height) = (WIDE.width, picture.height);
    let mut out = String::new();
    put!(
        &mut out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
         height=\"{height}\" role=\"img\" aria-labelledby=\"t d\">\n<title id=\"t\">Load line of {}</title>\n\
         <desc id=\"d\">{}</desc>\n<style>{}{}</style>\n<rect class=\"paper\" width=\"100%\" height=\"100%\" rx=\"10\"/>\n",
        escape(&line.system),
        escape(&headline(line)),
        include_str!("colors.css"),
        include_str!("ladder.css"),
    );
    out.push_str(&picture.body);
    out.push_str("</svg>\n");
    out
}
