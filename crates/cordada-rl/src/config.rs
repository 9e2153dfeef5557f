//! Typed configs: TOML in and out, unknown keys refused with the nearest name, names known from
//! other libraries accepted.

use cordada_nn::Schedule;
use serde::Serialize;
use serde::de::DeserializeOwned;
use toml::{Table, Value};

use crate::error::{Error, nearest};

/// One setting of a config, for help, lists and checks.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Its name in config files and after `--set`.
    pub name: &'static str,
    /// Its Rust type, which says what it takes.
    pub kind: &'static str,
    /// What it does: symbol, range, source.
    pub doc: &'static str,
    /// Names of the same setting in other libraries.
    pub aliases: &'static [&'static str],
}

/// A config with a list of its fields; [`config!`](crate::config!) makes both from one definition.
pub trait Config: Serialize + DeserializeOwned + Default {
    /// Its settings.
    const FIELDS: &'static [Field];

    /// Names of settings that other libraries have and this config says in another way, with what
    /// to set instead.
    const RENAMED: &'static [(&'static str, &'static str)] = &[];

    /// Checks ranges. `section` is what the errors call the config.
    ///
    /// # Errors
    ///
    /// [`Error::BadValue`] for the first setting that cannot be used.
    fn check(&self, section: &str) -> Result<(), Error>;

    /// The config of `section` with the settings of `table`, the rest at their defaults.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownKey`] or [`Error::BadValue`].
    fn from_table(section: &str, table: &Table) -> Result<Self, Error> {
        Self::default().with_table(section, table)
    }

    /// This config with the settings of `table` in place of its own.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownKey`] or [`Error::BadValue`].
    fn with_table(&self, section: &str, table: &Table) -> Result<Self, Error> {
        for (key, value) in table {
            if let Some((_, instead)) = Self::RENAMED.iter().find(|(name, _)| name == key) {
                return Err(Error::BadValue {
                    section: section.to_string(),
                    key: key.clone(),
                    value: value.to_string(),
                    expected: format!("set {instead}"),
                });
            }
        }
        let mut all = self.to_table();
        for (key, value) in canonical(section, table, Self::FIELDS)? {
            all.insert(key.clone(), value.clone());
            // One at a time, so that the error can name the setting.
            if let Err(reason) = Self::deserialize(Value::Table(all.clone())) {
                return Err(Error::BadValue {
                    section: section.to_string(),
                    key,
                    value: value.to_string(),
                    expected: reason.message().to_string(),
                });
            }
        }
        let config = Self::deserialize(Value::Table(all))
            .map_err(|e| Error::Config { reason: format!("[{section}] {}", e.message()) })?;
        config.check(section)?;
        Ok(config)
    }

    /// All settings, as they are.
    fn to_table(&self) -> Table {
        match Value::try_from(self) {
            Ok(Value::Table(table)) => table,
            other => unreachable!("a config is a table of plain values: {other:?}"),
        }
    }
}

/// Replaces aliases by the names of `fields` and refuses what is neither.
fn canonical(section: &str, table: &Table, fields: &[Field]) -> Result<Table, Error> {
    let mut out = Table::new();
    for (key, value) in table {
        let known = fields.iter().find(|f| f.name == key || f.aliases.contains(&key.as_str()));
        let Some(field) = known else {
            let names = fields.iter().flat_map(|f| f.aliases.iter().copied().chain([f.name]));
            return Err(Error::UnknownKey {
                key: key.clone(),
                section: section.to_string(),
                nearest: nearest(key, names),
            });
        };
        if out.insert(field.name.to_string(), value.clone()).is_some() {
            return Err(Error::BadValue {
                section: section.to_string(),
                key: key.clone(),
                value: value.to_string(),
                expected: format!("another name of {}, which is set as well", field.name),
            });
        }
    }
    Ok(out)
}

/// Reads `key=value` as given to `--set`: the value is TOML where it can be, else a string.
///
/// # Errors
///
/// [`Error::Config`] if there is no `=`.
pub fn parse_assignment(text: &str) -> Result<(String, Value), Error> {
    let (key, value) = text.split_once('=').ok_or_else(|| Error::Config {
        reason: format!("{text:?} is not of the form key=value"),
    })?;
    let (key, value) = (key.trim(), value.trim());
    let parsed = toml::from_str::<Table>(&format!("x = {value}")).ok();
    let parsed = parsed.and_then(|mut table| table.remove("x"));
    Ok((key.to_string(), parsed.unwrap_or_else(|| Value::String(value.to_string()))))
}

/// Defines a config struct with defaults, serde and the list of its fields. Groups are configs that
/// several structs share: their settings appear beside the struct's own, with defaults that the
/// struct chooses.
#[macro_export]
macro_rules! config {
    (
        $(#[$meta:meta])*
        pub struct $name:ident {
            $(
                $(#[doc = $doc:literal])+
                $(#[serde($($serde:tt)+)])?
                $field:ident: $ty:ty = $default:expr $(, alias [$($alias:literal),+])?;
            )*
        }
        $(groups {
            $( $(#[doc = $group_doc:literal])+ $group:ident: $group_ty:ty = $group_default:expr; )+
        })?
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, ::serde::Serialize, ::serde::Deserialize)]
        pub struct $name {
            $( $(#[doc = $doc])+ $(#[serde($($serde)+)])? pub $field: $ty, )*
            $($( $(#[doc = $group_doc])+ #[serde(flatten)] pub $group: $group_ty, )+)?
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $( $field: $default, )* $($( $group: $group_default, )+)? }
            }
        }

        impl $name {
            const OWN_FIELDS: &'static [$crate::config::Field] = &[
                $( $crate::config::Field {
                    name: stringify!($field),
                    kind: stringify!($ty),
                    doc: concat!($($doc),+),
                    aliases: &[$($($alias),+)?],
                }, )*
            ];

            /// Its settings, in order: its own, then those of its groups.
            pub const FIELDS: &'static [$crate::config::Field] = {
                const PARTS: &[&[$crate::config::Field]] =
                    &[$name::OWN_FIELDS, $($( <$group_ty>::FIELDS, )+)?];
                const COUNT: usize = $crate::config::count(PARTS);
                const ALL: [$crate::config::Field; COUNT] = $crate::config::joined(PARTS);
                &ALL
            };
        }
    };
}

/// How many fields there are in all parts.
#[doc(hidden)]
pub const fn count(parts: &[&[Field]]) -> usize {
    let (mut sum, mut i) = (0, 0);
    while i < parts.len() {
        sum += parts[i].len();
        i += 1;
    }
    sum
}

/// The parts' fields, one after the other.
#[doc(hidden)]
pub const fn joined<const N: usize>(parts: &[&[Field]]) -> [Field; N] {
    let mut all = [Field { name: "", kind: "", doc: "", aliases: &[] }; N];
    let (mut at, mut i) = (0, 0);
    while i < parts.len() {
        let mut j = 0;
        while j < parts[i].len() {
            all[at] = parts[i][j];
            at += 1;
            j += 1;
        }
        i += 1;
    }
    all
}

/// Range checks of one section's settings; each names setting, value and range.
#[derive(Clone, Copy, Debug)]
pub struct Checks<'a> {
    /// What errors call the config.
    pub section: &'a str,
}

impl Checks<'_> {
    /// The error for a value that cannot be used.
    pub fn refuse(&self, key: &str, value: impl std::fmt::Display, expected: &str) -> Error {
        Error::BadValue {
            section: self.section.to_string(),
            key: key.to_string(),
            value: value.to_string(),
            expected: expected.to_string(),
        }
    }

    /// A number that fits.
    ///
    /// # Errors
    ///
    /// [`Error::BadValue`] if it does not.
    pub fn number(
        &self,
        key: &str,
        value: f64,
        fits: fn(f64) -> bool,
        expected: &str,
    ) -> Result<(), Error> {
        if fits(value) { Ok(()) } else { Err(self.refuse(key, value, expected)) }
    }

    /// Numbers from 0 to 1.
    ///
    /// # Errors
    ///
    /// [`Error::BadValue`] for the first one that is not.
    pub fn unit(&self, numbers: &[(&str, f64)]) -> Result<(), Error> {
        let fits = |x: f64| (0.0..=1.0).contains(&x);
        numbers.iter().try_for_each(|(key, x)| self.number(key, *x, fits, "a number from 0 to 1"))
    }

    /// Numbers above 0.
    ///
    /// # Errors
    ///
    /// [`Error::BadValue`] for the first one that is not.
    pub fn positive(&self, numbers: &[(&str, f64)]) -> Result<(), Error> {
        numbers
            .iter()
            .try_for_each(|(key, x)| self.number(key, *x, |x| x > 0.0, "a number above 0"))
    }

    /// Finite numbers of at least 0.
    ///
    /// # Errors
    ///
    /// [`Error::BadValue`] for the first one that is not.
    pub fn weights(&self, numbers: &[(&str, f64)]) -> Result<(), Error> {
        let fits = |x: f64| x >= 0.0 && x.is_finite();
        let expected = "a finite number of at least 0";
        numbers.iter().try_for_each(|(key, x)| self.number(key, *x, fits, expected))
    }

    /// Counts of at least 1.
    ///
    /// # Errors
    ///
    /// [`Error::BadValue`] for the first one that is 0.
    pub fn counts(&self, counts: &[(&str, usize)]) -> Result<(), Error> {
        let zero = counts.iter().find(|(_, count)| *count == 0);
        zero.map_or(Ok(()), |(key, _)| Err(self.refuse(key, 0, "at least 1")))
    }

    /// A count of at most `most`.
    ///
    /// # Errors
    ///
    /// [`Error::BadValue`] if it is more.
    pub fn at_most(&self, key: &str, count: usize, most: usize) -> Result<(), Error> {
        if count <= most {
            return Ok(());
        }
        Err(self.refuse(key, count, &format!("at most {most}")))
    }

    /// One of some names.
    ///
    /// # Errors
    ///
    /// [`Error::BadValue`] if it is not.
    pub fn name(&self, key: &str, value: &str, names: &[&str]) -> Result<(), Error> {
        if names.contains(&value) {
            return Ok(());
        }
        Err(self.refuse(key, value, &format!("one of {}", names.join(", "))))
    }

    /// Schedules whose values are finite and at least 0.
    ///
    /// # Errors
    ///
    /// [`Error::BadValue`] for the first one with another value.
    pub fn schedules(&self, schedules: &[(&str, &Schedule)]) -> Result<(), Error> {
        let fits = |x: f64| x >= 0.0 && x.is_finite();
        let bad = schedules.iter().find(|(_, schedule)| !knots(schedule).into_iter().all(fits));
        let Some((key, schedule)) = bad else { return Ok(()) };
        Err(self.refuse(key, schedule, "finite numbers of at least 0"))
    }
}

/// The values between which a schedule runs.
fn knots(schedule: &Schedule) -> Vec<f64> {
    match schedule {
        Schedule::Constant(value) => vec![*value],
        Schedule::Linear { from, to } | Schedule::Cosine { from, to } => vec![*from, *to],
        Schedule::Warmup { then, .. } => knots(then),
        Schedule::Piecewise(points) => points.iter().map(|(_, value)| *value).collect(),
    }
}

/// A number that can be a word instead, which stands for none.
macro_rules! number_or {
    ($module:ident, $word:literal) => {
        #[doc = concat!("A number that can be `\"", $word, "\"`.")]
        pub mod $module {
            use serde::{Deserialize, Deserializer, Serializer, de};

            const EXPECTED: &str = concat!("a number or \"", $word, "\"");

            /// Writes the number, or the word.
            ///
            /// # Errors
            ///
            /// The serializer's.
            #[allow(clippy::ref_option, reason = "the signature that serde calls")]
            pub fn serialize<S: Serializer>(value: &Option<f64>, s: S) -> Result<S::Ok, S::Error> {
                match value {
                    Some(value) => s.serialize_f64(*value),
                    None => s.serialize_str($word),
                }
            }

            /// Reads a number or the word.
            ///
            /// # Errors
            ///
            /// If it is neither.
            pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<f64>, D::Error> {
                #[derive(Deserialize)]
                #[serde(untagged)]
                enum Form {
                    Float(f64),
                    Int(i64),
                    Text(String),
                }
                match Form::deserialize(d).map_err(|_| de::Error::custom(EXPECTED))? {
                    Form::Float(x) => Ok(Some(x)),
                    Form::Int(x) => Ok(Some(x as f64)),
                    Form::Text(text) if text == $word => Ok(None),
                    Form::Text(_) => Err(de::Error::custom(EXPECTED)),
                }
            }
        }
    };
}

number_or!(optional, "off");
number_or!(auto, "auto");

/// A [`cordada_nn::Schedule`] in a config: a number, or text such as `"linear(1e-3)"`.
pub mod schedule {
    use cordada_nn::Schedule;
    use serde::{Deserialize, Deserializer, Serializer, de};

    /// Writes a number where it is constant, else text.
    ///
    /// # Errors
    ///
    /// The serializer's.
    pub fn serialize<S: Serializer>(schedule: &Schedule, s: S) -> Result<S::Ok, S::Error> {
        match schedule {
            Schedule::Constant(value) => s.serialize_f64(*value),
            other => s.collect_str(other),
        }
    }

    /// Reads a number or text.
    ///
    /// # Errors
    ///
    /// If the text is not a schedule.
    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Schedule, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "a number or a schedule such as \"linear(1e-3, 0)\"")]
        enum Form {
            Float(f64),
            Int(i64),
            Text(String),
        }
        match Form::deserialize(d)? {
            Form::Float(x) => Ok(Schedule::Constant(x)),
            Form::Int(x) => Ok(Schedule::Constant(x as f64)),
            Form::Text(text) => text.parse().map_err(de::Error::custom),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::algo::a2c::A2cConfig;
    use crate::algo::ppo::PpoConfig;

    fn table(text: &str) -> Table {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn aliases_are_accepted_and_unknown_keys_refused() {
        let config = PpoConfig::from_table("ppo", &table("n_steps = 8\nent_coef = 0.5")).unwrap();
        assert_eq!((config.segment.num_steps, config.entropy_coef), (8, 0.5));
        let error = PpoConfig::from_table("ppo", &table("gama = 0.9")).unwrap_err();
        assert_eq!(error.to_string(), "unknown setting \"gama\" of ppo, did you mean \"gamma\"?");
        let error = PpoConfig::from_table("ppo", &table("zzzzzz = 1")).unwrap_err();
        assert_eq!(error.to_string(), "unknown setting \"zzzzzz\" of ppo");
    }

    #[test]
    fn a_setting_given_under_two_names_is_refused() {
        let error = PpoConfig::from_table("ppo", &table("n_steps = 7\nnum_steps = 8")).unwrap_err();
        assert!(error.to_string().contains("another name of num_steps"), "{error}");
    }

    #[test]
    fn wrong_types_and_ranges_name_the_setting() {
        let error = PpoConfig::from_table("ppo", &table("gamma = \"high\"")).unwrap_err();
        assert!(error.to_string().starts_with("ppo.gamma = \"high\": "), "{error}");
        let error = PpoConfig::from_table("ppo", &table("gamma = 1.5")).unwrap_err();
        assert_eq!(error.to_string(), "ppo.gamma = 1.5: a number from 0 to 1");
    }

    #[test]
    fn settings_said_in_another_way_tell_how() {
        let error = PpoConfig::from_table("ppo", &table("batch_size = 64")).unwrap_err();
        let message =
            "ppo.batch_size = 64: set num_minibatches = num_envs · num_steps / batch_size";
        assert_eq!(error.to_string(), message);
        let text = "learning_rate = \"piecewise(0: 1e-3, 0.51: 1e-3, 0.52: -5, 0.54: 1e-3)\"";
        let error = PpoConfig::from_table("ppo", &table(text)).unwrap_err();
        assert!(error.to_string().ends_with("finite numbers of at least 0"), "{error}");
    }

    #[test]
    fn a_config_survives_its_own_toml() {
        let mut config = PpoConfig { target_kl: Some(0.02), ..PpoConfig::default() };
        config.step.learning_rate = "linear(1e-3, 1e-5)".parse().unwrap();
        let text = toml::to_string(&config).unwrap();
        let back = PpoConfig::from_table("ppo", &table(&text)).unwrap();
        assert_eq!(back, config);
    }

    #[test]
    fn what_is_on_can_be_switched_off_again() {
        let config = PpoConfig { target_kl: Some(0.02), ..PpoConfig::default() };
        let off = config.with_table("ppo", &table("target_kl = \"off\"")).unwrap();
        assert_eq!(off, PpoConfig::default());
        assert!(toml::to_string(&off).unwrap().contains("target_kl = \"off\""));
        let error = config.with_table("ppo", &table("target_kl = \"of\"")).unwrap_err();
        assert!(error.to_string().contains("a number or \"off\""), "{error}");
    }

    #[test]
    fn groups_take_the_defaults_of_whom_they_belong_to() {
        let config = A2cConfig::from_table("a2c", &table("gamma = 0.5")).unwrap();
        assert_eq!((config.segment.gamma, config.segment.num_steps), (0.5, 5));
        let config = PpoConfig::from_table("ppo", &table("gamma = 0.5")).unwrap();
        assert_eq!((config.segment.gamma, config.segment.num_steps), (0.5, 256));
    }

    #[test]
    fn assignments_are_toml_where_they_can_be() {
        let (key, value) = parse_assignment("gamma=0.9").unwrap();
        assert_eq!((key.as_str(), value), ("gamma", Value::Float(0.9)));
        assert_eq!(parse_assignment("hidden=[32, 32]").unwrap().1.as_array().unwrap().len(), 2);
        let text = parse_assignment("learning_rate=linear(1e-3)").unwrap().1;
        assert_eq!(text, Value::String("linear(1e-3)".into()));
        assert_eq!(
            parse_assignment("x").unwrap_err().to_string(),
            "the config is not valid: \"x\" is not of the form key=value"
        );
    }
}
