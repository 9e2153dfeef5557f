//! The list of environments. Each entry is the constant `SPEC` beside its implementation; names,
//! help, checks and recordings all come from this list.

use std::fmt;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::env::Env;
use crate::error::Error;
use crate::wrapper::TimeLimit;
use crate::{classic, toy_text};

/// Declares the modules of a family of environments, and the list `SPECS` of their entries: one
/// line per environment.
macro_rules! environments {
    ($($module:ident),+ $(,)?) => {
        $(pub mod $module;)+

        /// Entries of this family.
        pub(crate) const SPECS: &[&$crate::registry::EnvSpec] = &[$(&$module::SPEC),+];
    };
}
pub(crate) use environments;

/// The families. To add an environment, write its file with a `SPEC` and name it in its family's
/// `environments!`. A test fails if a file's `SPEC` is in no list.
const FAMILIES: &[&[&EnvSpec]] = &[classic::SPECS, toy_text::SPECS];

/// Every environment, family by family.
pub const ENVIRONMENTS: &[&EnvSpec] = &ALL;

const ALL: [&EnvSpec; COUNT] = {
    let mut all = [FAMILIES[0][0]; COUNT];
    let (mut to, mut family) = (0, 0);
    while family < FAMILIES.len() {
        let mut i = 0;
        while i < FAMILIES[family].len() {
            all[to] = FAMILIES[family][i];
            to += 1;
            i += 1;
        }
        family += 1;
    }
    all
};

const COUNT: usize = {
    let (mut count, mut family) = (0, 0);
    while family < FAMILIES.len() {
        count += FAMILIES[family].len();
        family += 1;
    }
    count
};

/// What is known about an environment without making it.
#[derive(Clone, Copy)]
pub struct EnvSpec {
    /// Its name: Gymnasium's where the dynamics are Gymnasium's.
    pub name: &'static str,
    /// Other names that it answers to.
    pub aliases: &'static [&'static str],
    /// What it reproduces, with the version.
    pub source: &'static str,
    /// The task in a line.
    pub summary: &'static str,
    /// Steps after which an episode is truncated.
    pub max_episode_steps: Option<u32>,
    /// Mean return from which the task counts as solved.
    pub reward_threshold: Option<f64>,
    /// Makes it, without the time limit.
    pub make: fn() -> Box<dyn Env>,
    /// Makes it with options, a JSON object under Gymnasium's names, without the time limit. None
    /// if it has no options.
    pub make_with: Option<MakeWith>,
}

/// Makes an environment with options, a JSON object under Gymnasium's names.
pub type MakeWith = fn(&str) -> Result<Box<dyn Env>, Error>;

impl EnvSpec {
    /// The environment with its time limit.
    pub fn build(&self) -> Box<dyn Env> {
        self.limit((self.make)())
    }

    /// The environment with options, a JSON object under Gymnasium's names, and its time limit.
    /// What is not named keeps its default.
    ///
    /// # Errors
    ///
    /// [`Error::EnvOptions`] if the environment has no such options; other [`Error`]s if their
    /// values are impossible.
    ///
    /// # Examples
    ///
    /// ```
    /// use cordada_env::find;
    ///
    /// let env = find("FrozenLake-v1")?.build_with(r#"{"is_slippery": false}"#)?;
    /// assert_eq!(env.table().unwrap().outcomes(0, 2).len(), 1);
    /// assert!(find("CartPole-v1")?.build_with(r#"{"is_slippery": false}"#).is_err());
    /// # Ok::<(), cordada_env::Error>(())
    /// ```
    pub fn build_with(&self, options: &str) -> Result<Box<dyn Env>, Error> {
        if let Some(make) = self.make_with {
            return Ok(self.limit(make(options)?));
        }
        let NoOptions {} = parse(self.name, options)?;
        Ok(self.build())
    }

    fn limit(&self, env: Box<dyn Env>) -> Box<dyn Env> {
        match self.max_episode_steps {
            Some(limit) => Box::new(TimeLimit::new(env, limit)),
            None => env,
        }
    }
}

/// The options of an environment that has none.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NoOptions {}

/// Options of the environment `env` from JSON.
pub(crate) fn parse<T: DeserializeOwned>(env: &'static str, options: &str) -> Result<T, Error> {
    serde_json::from_str(options).map_err(|source| {
        let options = options.to_string();
        Error::EnvOptions { env, options, source }
    })
}

impl fmt::Debug for EnvSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EnvSpec").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The entry of the environment called `name`, in any case of letters, or by an alias.
///
/// # Errors
///
/// [`Error::UnknownEnv`], with the nearest name there is.
///
/// # Examples
///
/// ```
/// use cordada_env::find;
///
/// assert_eq!(find("cartpole-V1")?.max_episode_steps, Some(500));
/// let error = find("CartPoll-v1").unwrap_err().to_string();
/// assert!(error.contains("did you mean \"CartPole-v1\"?"));
/// # Ok::<(), cordada_env::Error>(())
/// ```
pub fn find(name: &str) -> Result<&'static EnvSpec, Error> {
    let names = |spec: &&'static EnvSpec| {
        let spec: &'static EnvSpec = spec;
        std::iter::once(spec.name).chain(spec.aliases.iter().copied())
    };
    let found =
        ENVIRONMENTS.iter().find(|spec| names(spec).any(|known| known.eq_ignore_ascii_case(name)));
    if let Some(spec) = found {
        return Ok(spec);
    }
    let wanted = name.to_lowercase();
    let near = ENVIRONMENTS.iter().flat_map(names).map(|known| {
        (strsim::normalized_damerau_levenshtein(&wanted, &known.to_lowercase()), known)
    });
    let nearest = near.max_by(|a, b| a.0.total_cmp(&b.0));
    // Below half, the names have too little in common to be a slip of the pen.
    let nearest = nearest.filter(|&(similarity, _)| similarity >= 0.5).map(|(_, known)| known);
    Err(Error::UnknownEnv { name: name.to_string(), nearest })
}

/// Makes the environment called `name`, with its time limit.
///
/// # Errors
///
/// [`Error::UnknownEnv`], with the nearest name there is.
pub fn make(name: &str) -> Result<Box<dyn Env>, Error> {
    Ok(find(name)?.build())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_in_any_case_and_by_alias() {
        assert_eq!(find("PENDULUM-V1").unwrap().name, "Pendulum-v1");
        assert_eq!(find("cartpole").unwrap().name, "CartPole-v1");
        for spec in ENVIRONMENTS {
            for alias in spec.aliases {
                assert_eq!(find(alias).unwrap().name, spec.name);
            }
        }
    }

    #[test]
    fn an_unknown_name_gets_the_nearest_or_none() {
        let near = find("acrobat-v1").unwrap_err().to_string();
        assert_eq!(
            near,
            "unknown environment \"acrobat-v1\" (did you mean \"Acrobot-v1\"?); run `cordada list \
             envs` for all names"
        );
        let far = find("zzz").unwrap_err().to_string();
        assert_eq!(far, "unknown environment \"zzz\"; run `cordada list envs` for all names");
    }

    #[test]
    fn options_are_set_by_name_and_unknown_ones_refused() {
        let slippery = |env: &dyn Env| env.table().unwrap().outcomes(0, 0).len() == 3;
        let lake = find("FrozenLake-v1").unwrap();
        assert!(slippery(&*lake.build_with("{}").unwrap()));
        assert!(!slippery(&*lake.build_with(r#"{"is_slippery": false}"#).unwrap()));
        let refused = |name: &str, options: &str| {
            let error = find(name).unwrap().build_with(options).err().unwrap();
            error.to_string()
        };
        let error = refused("FrozenLake-v1", r#"{"slippery": false}"#);
        assert!(
            error.starts_with(
                "FrozenLake-v1 cannot be made with the options {\"slippery\": false}: unknown \
                 field `slippery`"
            ),
            "{error}"
        );
        assert!(refused("CartPole-v1", r#"{"g": 1}"#).contains("unknown field `g`"));
        let error = refused("FrozenLake-v1", r#"{"success_rate": 1.5}"#);
        assert_eq!(error, "success_rate is 1.5, it has to be from 0 to 1");
    }

    #[test]
    fn a_wrong_action_shows_as_nan() {
        for spec in ENVIRONMENTS {
            let mut env = spec.build();
            let mut stream = crate::Stream::new(1, crate::role::ENV, 0);
            let mut obs = vec![0.0; env.obs_space().len()];
            env.reset(&mut stream, &mut obs);
            let action = vec![f32::NAN; env.action_space().len()];
            env.step(&action, &mut stream, &mut obs);
            let state = env.state().unwrap_or_default();
            let shows = obs.iter().any(|x| x.is_nan()) || state.iter().any(|x| x.is_nan());
            assert!(shows, "{}: {obs:?}, {state:?}", spec.name);
        }
    }

    #[test]
    fn make_adds_the_time_limit() {
        use crate::{Outcome, Stream, role};
        let mut stream = Stream::new(0, role::ENV, 0);
        let mut env = make("Pendulum-v1").unwrap();
        let mut obs = [0.0; 3];
        env.reset(&mut stream, &mut obs);
        for t in 1..=200 {
            let outcome = env.step(&[0.0], &mut stream, &mut obs).outcome;
            let want = if t == 200 { Outcome::Truncated } else { Outcome::Continue };
            assert_eq!(outcome, want, "step {t}");
        }
    }
}
