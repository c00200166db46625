//! Numbers and foreign text, made fit for a page: shared by figures and report.

/// Escapes what comes from outside for HTML and SVG text and double-quoted attributes. Control characters, which XML
/// forbids, become the replacement character.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\n' | '\t' => out.push(c),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// Escaped text with `^{..}` raised and `_{..}` lowered, as HTML.
pub(crate) fn math(text: &str) -> String {
    let mut out = String::new();
    let text = escape(text);
    let mut rest = text.as_str();
    while let Some((before, tag, inside, after)) = next_script(rest) {
        out.push_str(&format!("{before}<{tag}>{inside}</{tag}>"));
        rest = after;
    }
    out + rest
}

fn next_script(text: &str) -> Option<(&str, &'static str, &str, &str)> {
    let raised = text.split_once("^{").map(|(before, rest)| (before, "sup", rest));
    let lowered = text.split_once("_{").map(|(before, rest)| (before, "sub", rest));
    let (before, tag, rest) = raised.into_iter().chain(lowered).min_by_key(|(before, ..)| before.len())?;
    let (inside, after) = rest.split_once('}')?;
    Some((before, tag, inside, after))
}

/// A share as a percentage with one decimal; a value that is not finite says so.
pub(crate) fn percent(x: f64) -> String {
    if x.is_finite() { format!("{:.1}\u{a0}%", 100.0 * x) } else { not_finite(x) }
}

/// About four significant digits, without trailing zeros; scientific outside 1e-4..1e6.
pub(crate) fn number(x: f64) -> String {
    if !x.is_finite() {
        return not_finite(x);
    }
    if x == 0.0 {
        return "0".into();
    }
    let magnitude = x.abs().log10().floor();
    if !(-4.0..6.0).contains(&magnitude) {
        let text = format!("{x:.2e}");
        return match text.split_once('e') {
            Some((mantissa, exponent)) => format!("{}e{exponent}", trim_zeros(mantissa)),
            None => text,
        };
    }
    let decimals = (3.0 - magnitude).max(0.0) as usize;
    trim_zeros(&format!("{x:.decimals$}")).into()
}

fn trim_zeros(text: &str) -> &str {
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { text }
}

fn not_finite(x: f64) -> String {
    if x.is_nan() {
        "not a number"
    } else if x > 0.0 {
        "infinite"
    } else {
        "minus infinite"
    }
    .into()
}

/// A count with its digits in groups of three.
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

/// The first `limit` characters on one line, with an ellipsis where something was cut.
pub(crate) fn shorten(text: &str, limit: usize) -> String {
    let line = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    if text.chars().count() <= limit {
        return line.collect();
    }
    line.take(limit.saturating_sub(1)).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_everything_that_could_leave_its_place() {
        assert_eq!(escape("<b a=\"1\" b='2'>&\u{7}"), "&lt;b a=&quot;1&quot; b=&#39;2&#39;&gt;&amp;\u{fffd}");
    }

    #[test]
    fn scripts_are_raised_and_lowered() {
        assert_eq!(math("Z^{l+1} <W_{k}^{T}>"), "Z<sup>l+1</sup> &lt;W<sub>k</sub><sup>T</sup>&gt;");
        assert_eq!(math("x^{2 _{"), "x^{2 _{");
    }

    #[test]
    fn numbers_read_well() {
        let cases =
            [(0.0, "0"), (1.0, "1"), (86.234_5, "86.23"), (0.0015, "0.0015"), (1e-7, "1e-7"), (123_456.0, "123456")];
        for (x, text) in cases {
            assert_eq!(number(x), text);
        }
        assert_eq!(number(-2.5e9), "-2.5e9");
        assert_eq!(number(f64::NAN), "not a number");
        assert_eq!(number(f64::NEG_INFINITY), "minus infinite");
        assert_eq!(percent(0.8625), "86.2\u{a0}%");
        assert_eq!((count(999), count(1_234_567)), ("999".into(), "1,234,567".into()));
        assert_eq!(shorten("Ankle boot", 6), "Ankle…");
    }
}
