//! Where in the text of a config file an error is.

use std::ops::Range;

use cordada::{env, rl};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// The place of an error, and the parser's message if it is the parser's error.
pub(crate) fn locate(text: &str, error: &rl::Error) -> Option<(Range<usize>, Option<String>)> {
    use rl::Error as E;
    let root = match DeTable::parse(text) {
        Ok(root) => root,
        Err(error) => {
            let message = format!("not valid TOML: {}", error.message());
            return Some((error.span()?, Some(message)));
        }
    };
    let root = root.get_ref();
    let span = match error {
        E::UnknownAlgo { .. } => value(root, "run", "algo")?,
        E::Env(env::Error::UnknownEnv { .. }) => value(root, "run", "env")?,
        E::UnknownKey { key, section, .. } if section == "the config" => entry(root, key)?.0,
        E::UnknownKey { key, section, .. } => entry(table(root, section)?, key)?.0,
        // A value that breaks a rule may be given under another name of its setting.
        E::BadValue { section, key, .. } => value(root, section, key).or_else(|| {
            aliases(section, key).iter().find_map(|alias| value(root, section, alias))
        })?,
        _ => return None,
    };
    Some((span, None))
}

/// Other names of a setting.
fn aliases(section: &str, key: &str) -> &'static [&'static str] {
    let fields = match rl::algo::find(section) {
        Ok(spec) => spec.fields,
        Err(_) => rl::train::RunSettings::FIELDS,
    };
    fields.iter().find(|field| field.name == key).map_or(&[], |field| field.aliases)
}

/// Where a key and its value are.
fn entry(table: &DeTable<'_>, key: &str) -> Option<(Range<usize>, Range<usize>)> {
    let (name, value) = table.iter().find(|(name, _)| name.get_ref().as_ref() == key)?;
    Some((name.span(), value.span()))
}

fn table<'a>(root: &'a DeTable<'a>, section: &str) -> Option<&'a DeTable<'a>> {
    let found = root.iter().find(|(name, _)| name.get_ref().as_ref() == section)?;
    match Spanned::get_ref(found.1) {
        DeValue::Table(table) => Some(table),
        _ => None,
    }
}

fn value(root: &DeTable<'_>, section: &str, key: &str) -> Option<Range<usize>> {
    Some(entry(table(root, section)?, key)?.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The text that an error of the config points at.
    fn marked(text: &str) -> String {
        let error = rl::train::RunConfig::from_toml(text).unwrap_err();
        let (span, _) = locate(text, &error).unwrap_or_else(|| panic!("no place for {error}"));
        text[span].to_string()
    }

    #[test]
    fn the_key_or_the_value_is_marked() {
        assert_eq!(marked("[run]\nalgo = \"pppo\""), "\"pppo\"");
        assert_eq!(marked("[run]\nenv = \"Nowhere\""), "\"Nowhere\"");
        assert_eq!(marked("[run]\nsede = 3"), "sede");
        assert_eq!(marked("[ppo]\ngama = 0.9\n"), "gama");
        assert_eq!(marked("[ppo]\ngamma = 1.5\n"), "1.5");
        assert_eq!(marked("[ppo]\nn_envs = 0\n"), "0");
        assert_eq!(marked("[run]\nseed = 1\n[pppo]\n"), "pppo");
        assert_eq!(marked("[run]\nseed = = 1\n"), "=");
    }
}
