//! Fields of a JSON object, read with messages that name file, field, value and what is allowed.

use std::path::Path;

use serde_json::{Map, Value};

use super::file_error;
use crate::Error;

/// One JSON object of a file.
pub(crate) struct Fields<'a> {
    map: Map<String, Value>,
    path: &'a Path,
    /// Put before names of fields: `rope_parameters.` inside that object.
    prefix: String,
}

impl<'a> Fields<'a> {
    /// Parses a file's text.
    pub(crate) fn parse(text: &str, path: &'a Path) -> Result<Self, Error> {
        match serde_json::from_str(text) {
            Ok(Value::Object(map)) => Ok(Self { map, path, prefix: String::new() }),
            Ok(_) => Err(file_error(path, "this must be a JSON object { … }")),
            Err(e) => Err(file_error(path, format!("this is not JSON: {e}"))),
        }
    }

    /// The field, unless absent or `null`.
    pub(crate) fn get(&self, name: &str) -> Option<&Value> {
        self.map.get(name).filter(|v| !v.is_null())
    }

    /// Names of all fields.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.map.keys().map(String::as_str)
    }

    /// An error about the field's value.
    pub(crate) fn wrong(&self, name: &str, wanted: &str) -> Error {
        let value = self.map.get(name).unwrap_or(&Value::Null);
        file_error(self.path, format!("{}{name} is {value}; {wanted}", self.prefix))
    }

    /// An error about a field that must be there.
    pub(crate) fn missing(&self, name: &str) -> Error {
        file_error(self.path, format!("the field {}{name} is missing", self.prefix))
    }

    fn read<T>(
        &self,
        name: &str,
        wanted: &str,
        convert: impl Fn(&Value) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        match self.get(name) {
            None => Ok(None),
            Some(v) => convert(v).map(Some).ok_or_else(|| self.wrong(name, wanted)),
        }
    }

    /// A positive count, if there.
    pub(crate) fn opt_count(&self, name: &str) -> Result<Option<usize>, Error> {
        self.read(name, "it must be a whole number from 1 on", |v| {
            v.as_u64().filter(|&n| n > 0 && n < 1 << 48).map(|n| n as usize)
        })
    }

    /// A positive count.
    pub(crate) fn count(&self, name: &str) -> Result<usize, Error> {
        self.opt_count(name)?.ok_or_else(|| self.missing(name))
    }

    /// A number from 0 on, if there.
    pub(crate) fn opt_number(&self, name: &str) -> Result<Option<f64>, Error> {
        self.read(name, "it must be a number from 0 on", |v| {
            v.as_f64().filter(|x| x.is_finite() && *x >= 0.0)
        })
    }

    /// A number greater than 0.
    pub(crate) fn positive(&self, name: &str) -> Result<f64, Error> {
        match self.opt_number(name)? {
            Some(x) if x > 0.0 => Ok(x),
            Some(_) => Err(self.wrong(name, "it must be greater than 0")),
            None => Err(self.missing(name)),
        }
    }

    /// A flag, `default` if absent.
    pub(crate) fn flag(&self, name: &str, default: bool) -> Result<bool, Error> {
        Ok(self.read(name, "it must be true or false", Value::as_bool)?.unwrap_or(default))
    }

    /// A text, if there.
    pub(crate) fn opt_text(&self, name: &str) -> Result<Option<String>, Error> {
        self.read(name, "it must be a text", |v| v.as_str().map(str::to_string))
    }

    /// A token, if there; −1, which old files write, means none.
    pub(crate) fn opt_token(&self, name: &str) -> Result<Option<u32>, Error> {
        if self.get(name).and_then(Value::as_i64) == Some(-1) {
            return Ok(None);
        }
        self.read(name, "it must be a token: a whole number from 0 on", token)
    }

    /// One token or a list of them; none if absent.
    pub(crate) fn tokens(&self, name: &str) -> Result<Vec<u32>, Error> {
        if self.get(name).is_none_or(|v| v.as_i64() == Some(-1)) {
            return Ok(Vec::new());
        }
        let read = self.read(name, "it must be a token or a list of tokens", |v| match v {
            Value::Array(list) => list.iter().map(token).collect(),
            one => Some(vec![token(one)?]),
        });
        Ok(read?.unwrap_or_default())
    }

    /// A list of texts, if there.
    pub(crate) fn opt_texts(&self, name: &str) -> Result<Option<Vec<String>>, Error> {
        self.read(name, "it must be a list of texts", |v| {
            v.as_array()?.iter().map(|x| x.as_str().map(str::to_string)).collect()
        })
    }

    /// An object, if there.
    pub(crate) fn opt_object(&self, name: &str) -> Result<Option<Fields<'a>>, Error> {
        let map = self.read(name, "it must be an object { … }", |v| v.as_object().cloned())?;
        let prefix = format!("{}{name}.", self.prefix);
        Ok(map.map(|map| Fields { map, path: self.path, prefix }))
    }

    /// Refuses a field unless it is absent, `null`, `false`, empty or one of `harmless`.
    pub(crate) fn refuse(&self, name: &str, harmless: &[Value], why: &str) -> Result<(), Error> {
        let fine = match self.get(name) {
            None | Some(Value::Bool(false)) => true,
            Some(Value::Array(list)) if list.is_empty() => true,
            Some(Value::Object(map)) if map.is_empty() => true,
            Some(value) => harmless.contains(value),
        };
        if fine { Ok(()) } else { Err(self.wrong(name, why)) }
    }
}

fn token(value: &Value) -> Option<u32> {
    value.as_u64().and_then(|id| u32::try_from(id).ok())
}
