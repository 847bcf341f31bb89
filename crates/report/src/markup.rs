//! Text inside HTML, SVG and XML. Names come from files: all that is written goes through here.

use std::fmt::Write as _;

/// `text` as it may stand in an element or an attribute of HTML or XML, on one line. Characters
/// that XML does not have, or that could reorder what is read, are replaced.
pub(crate) fn escape(text: &str) -> String {
    let text = crate::text::clean(text);
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            _ => out.push(c),
        }
    }
    out
}

/// A coordinate: one decimal at most, never an exponent, `0` for what is not finite.
pub(crate) fn coordinate(value: f64) -> String {
    if !value.is_finite() {
        return "0".into();
    }
    let text = format!("{:.1}", value.clamp(-1e6, 1e6));
    let text = text.strip_suffix(".0").unwrap_or(&text);
    if text == "-0" { "0".into() } else { text.into() }
}

/// Appends formatted text; a `String` takes whatever is written to it.
pub(crate) fn append(out: &mut String, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("a string takes all that is written to it");
}

/// `put!(out, "...", ...)` appends formatted text to a string.
macro_rules! put {
    ($out:expr, $($text:tt)*) => { $crate::markup::append($out, format_args!($($text)*)) };
}
pub(crate) use put;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_gets_out_of_an_attribute_or_element() {
        assert_eq!(
            escape("<script>'x'</script>\"]]>&\u{0}\u{ffff}\n"),
            "&lt;script&gt;&#39;x&#39;&lt;/script&gt;&quot;]]&gt;&amp;\u{fffd}\u{fffd} "
        );
    }

    #[test]
    fn coordinates_are_short() {
        assert_eq!(coordinate(12.04), "12");
        assert_eq!(coordinate(-0.01), "0");
        assert_eq!(coordinate(3.26), "3.3");
        assert_eq!(coordinate(f64::NAN), "0");
        assert_eq!(coordinate(1e300), "1000000");
    }
}
