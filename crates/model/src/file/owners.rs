//! `owners:` — who answers for components.

use super::decode::Decoder;
use super::filled::Filled;
use super::quantity::TEXT;
use super::table::{Kind, Object, absent};
use crate::system::Owner;

pub(crate) static OWNER: Object = Object {
    name: "owner",
    doc: "Somebody who answers for components.",
    groups: &[&[
        absent("contact", Kind::Scalar(&TEXT), "nobody to call", "How to reach them."),
        absent("runbook", Kind::Scalar(&TEXT), "no runbook", "Where their runbook is."),
    ]],
};

impl Decoder<'_> {
    pub(super) fn owners(&mut self, root: &Filled) -> Vec<Owner> {
        let owners = root.get("owners").map();
        self.owner(root, owners);
        let text = |owner: &Filled, key: &str| owner.get(key).set().map(|text| text.text().to_owned());
        let decode = |(key, owner): &(super::tree::Key, Filled)| Owner {
            name: key.text.clone(),
            contact: text(owner, "contact"),
            runbook: text(owner, "runbook"),
        };
        owners.iter().map(decode).collect()
    }
}
