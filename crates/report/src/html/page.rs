//! What every page has around its content.

use crate::figures::MEANINGS;
use crate::markup::{escape, put};

/// A whole page. It asks for nothing from anywhere: the policy in its head forbids it to.
pub(super) fn document(title: &str, body: &str) -> String {
    let mut out = String::with_capacity(body.len() + 24_000);
    put!(
        &mut out,
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" \
         content=\"width=device-width, initial-scale=1\">\n<meta http-equiv=\"Content-Security-Policy\" \
         content=\"default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; base-uri 'none'; \
         form-action 'none'\">\n<meta name=\"color-scheme\" content=\"light dark\">\n<title>{}</title>\n<style>\n",
        escape(title)
    );
    for style in [include_str!("../svg/colors.css"), include_str!("../svg/ladder.css"), include_str!("page.css")] {
        out.push_str(style);
    }
    out.push_str(
        "</style>\n</head>\n<body>\n<button id=\"theme\" type=\"button\" aria-label=\"Switch between light and \
         dark\">◐</button>\n<main>\n",
    );
    out.push_str(body);
    out.push_str("</main>\n<script>\n");
    out.push_str(include_str!("page.js"));
    out.push_str("</script>\n</body>\n</html>\n");
    out
}

/// What the reader should know before trusting a figure.
pub(super) fn notices(partial: Option<&str>, invalid: Option<&str>, warnings: &[String], out: &mut String) {
    if let Some(why) = invalid {
        put!(out, "<p class=\"notice bad\"><b>Invalid.</b> {}</p>\n", escape(why));
    }
    if let Some(text) = partial {
        put!(out, "<p class=\"notice bad\"><b>Partial.</b> {}</p>\n", escape(text));
    }
    for warning in warnings {
        put!(out, "<p class=\"notice\"><b>Warning.</b> {}</p>\n", escape(warning));
    }
}

/// What every figure means.
pub(super) fn glossary(out: &mut String) {
    out.push_str("<details class=\"minor\"><summary>What the figures mean</summary><dl class=\"facts glossary\">");
    for meaning in MEANINGS {
        put!(out, "<dt>{}</dt><dd>{}</dd>", escape(meaning.label), escape(meaning.text));
    }
    out.push_str(
        "<dt>95% interval</dt><dd>Of figures over independent replications, by Student's t: of 20 such intervals, about 19 \
         hold the true mean.</dd><dt>Metastable</dt><dd>A system that a passing fault pushes into a state that feeds itself, \
         such as retries that cause the timeouts that cause them. It stays down after the fault has ended, until the load \
         falls far below what it carried before.</dd><dt>Weather</dt><dd>A named fault, or none, that a load is carried \
         through.</dd></dl></details>\n",
    );
}
