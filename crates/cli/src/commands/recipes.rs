//! `recipes`: what can be trained by name.

use anyhow::Result;
use clap::Args;

use crate::recipe::BUILT_IN;

/// List the built-in recipes, or print one.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  cargo xtask recipes\n  cargo xtask recipes fashion-mnist > mine.toml    # a start for one's own"
)]
pub struct RecipesArgs {
    /// The recipe to print.
    name: Option<String>,
}

/// Runs the command.
pub fn run(args: &RecipesArgs) -> Result<()> {
    if let Some(name) = &args.name {
        crate::recipe::load(name, &[])?;
        let text = BUILT_IN.iter().find(|(n, _)| n == name).map_or("", |(_, text)| text);
        return crate::say(text.trim_end());
    }
    let mut lines = Vec::new();
    for (name, text) in BUILT_IN {
        let field = |key: &str| text.lines().find_map(|l| l.strip_prefix(&format!("# {key}: "))).unwrap_or_default();
        lines.push(format!("{name:<20} {}\n{:<20} {}; {}", field("What"), "", field("Expected"), field("Time")));
    }
    crate::say(&lines.join("\n"))
}
