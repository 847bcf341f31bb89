//! What only people can say: headings with a question each.

use super::document::{Block, Section, plain, table, words};

pub(super) fn sections() -> Vec<Section> {
    let prompt = |heading, text| Section { heading, on_page: false, blocks: vec![Block::Prompt(text)] };
    let mut actions = prompt(
        "Action items",
        "To be written. What makes this less likely, notices it sooner, or makes it hurt less? One owner and one date each.",
    );
    let empty = ["", "", ""].map(plain).to_vec();
    actions.blocks.extend(table(vec![words("action"), words("owner"), words("until")], vec![empty]));
    vec![
        prompt(
            "Root cause",
            "To be written. Of a fault that was made on purpose: why did it reach those who ask? Which limit, which missing \
             or wrongly set policy? Go on asking why until the answer is something that can be changed.",
        ),
        prompt(
            "What went well, and what was luck",
            "To be written. What kept it from being worse: something that was built for it, or the hour of the day?",
        ),
        actions,
    ]
}
