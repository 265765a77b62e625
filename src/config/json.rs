//! Walks a JSON document and knows where it is: every error names the path of the key.
//!
//! RFC 8259; a name that is there twice in one object (section 4: "SHOULD be unique") is
//! refused, because a reader would see one value and the camera take the other.

use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::ops::RangeInclusive;
use std::str::FromStr;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde::ser::Serializer;
use serde_json::{Map, Value};

use super::{Error, NotAllowed};

/// Parses a whole document.
pub(super) fn parse(text: &str) -> Result<Value, serde_json::Error> {
    serde_json::from_str::<Unique>(text).map(|Unique(value)| value)
}

/// Serializes a value as its text.
pub(super) fn as_text<T: Display, S: Serializer>(value: &T, into: S) -> Result<S::Ok, S::Error> {
    into.collect_str(value)
}

/// One value, and the path that leads to it.
#[derive(Debug)]
pub(super) struct Entry<'a> {
    path: String,
    value: &'a Value,
}

impl<'a> Entry<'a> {
    pub(super) fn root(document: &'a Value) -> Self {
        Self { path: String::new(), value: document }
    }

    /// The value of one of the document's keys.
    pub(super) fn at(key: &str, value: &'a Value) -> Self {
        Self { path: key.to_owned(), value }
    }

    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// This value as an object that has none but the `known` keys.
    pub(super) fn object(&self, known: &[&str]) -> Result<Object<'a>, Error> {
        let Value::Object(members) = self.value else {
            return Err(self.not_allowed("an object, in braces"));
        };
        match members.keys().find(|key| !known.contains(&key.as_str())) {
            None => Ok(Object { path: self.path.clone(), members }),
            Some(key) => Err(Error::UnknownKey {
                path: join(&self.path, key),
                nearest: join(&self.path, nearest(key, known)),
            }),
        }
    }

    /// This value as a list, each element by `read`.
    pub(super) fn list<T>(
        &self,
        read: impl Fn(&Self) -> Result<T, Error>,
    ) -> Result<Vec<T>, Error> {
        let Value::Array(elements) = self.value else {
            return Err(self.not_allowed("a list, in brackets"));
        };
        let entry = |(index, value)| Self { path: format!("{}[{index}]", self.path), value };
        elements.iter().enumerate().map(entry).map(|entry| read(&entry)).collect()
    }

    /// This value as a list of at most `len_max`, each element by `read`.
    pub(super) fn short_list<T>(
        &self,
        len_max: usize,
        read: impl Fn(&Self) -> Result<T, Error>,
    ) -> Result<Vec<T>, Error> {
        match self.value.as_array() {
            Some(elements) if elements.len() > len_max => Err(Error::NotAllowed {
                path: self.path.clone(),
                value: format!("a list of {}", elements.len()),
                allowed: format!("a list of at most {len_max}"),
            }),
            _ => self.list(read),
        }
    }

    /// This value as an object whose keys are names of the author's, each value by `read`; a name
    /// is one when `is_name` says so, and `names` says so in words.
    pub(super) fn map<T>(
        &self,
        is_name: impl Fn(&str) -> bool,
        names: &str,
        read: impl Fn(&Self) -> Result<T, Error>,
    ) -> Result<BTreeMap<String, T>, Error> {
        let Value::Object(members) = self.value else {
            return Err(self.not_allowed("an object, in braces"));
        };
        let mut map = BTreeMap::new();
        for (name, value) in members {
            if !is_name(name) {
                return Err(Error::NotAllowed {
                    path: self.path.clone(),
                    value: shorten(format!("{name:?}")),
                    allowed: names.to_owned(),
                });
            }
            let entry = Self { path: join(&self.path, name), value };
            map.insert(name.clone(), read(&entry)?);
        }
        Ok(map)
    }

    pub(super) fn boolean(&self) -> Result<bool, Error> {
        self.value.as_bool().ok_or_else(|| self.not_allowed("true or false"))
    }

    /// This value as a whole number in `range`.
    pub(super) fn integer(&self, range: RangeInclusive<u32>) -> Result<u32, Error> {
        let number = self.value.as_u64().and_then(|number| u32::try_from(number).ok());
        number.filter(|number| range.contains(number)).ok_or_else(|| {
            self.not_allowed(format!("a whole number from {} to {}", range.start(), range.end()))
        })
    }

    /// This value as a whole number of any size that fits.
    pub(super) fn whole(&self) -> Result<i64, Error> {
        self.value.as_i64().ok_or_else(|| self.not_allowed("a whole number"))
    }

    /// This value as a number in `range`.
    pub(super) fn number(&self, range: RangeInclusive<f64>) -> Result<f64, Error> {
        let number = self.value.as_f64().filter(|number| range.contains(number));
        number.ok_or_else(|| {
            self.not_allowed(format!("a number from {} to {}", range.start(), range.end()))
        })
    }

    /// This value as a text of which `holds` is true; `allowed` says so in words.
    pub(super) fn text_that(
        &self,
        holds: impl Fn(&str) -> bool,
        allowed: &'static str,
    ) -> Result<String, Error> {
        self.parsed_by(|text| holds(text).then(|| text.to_owned()).ok_or(NotAllowed(allowed)))
    }

    /// This value as a text that `T` can be parsed from.
    pub(super) fn parsed<T: FromStr<Err = NotAllowed>>(&self) -> Result<T, Error> {
        self.parsed_by(str::parse)
    }

    /// This value as a text that `parse` takes.
    pub(super) fn parsed_by<T>(
        &self,
        parse: impl Fn(&str) -> Result<T, NotAllowed>,
    ) -> Result<T, Error> {
        // What is no text is refused with the words for a text that is not allowed.
        match self.value.as_str() {
            Some(text) => parse(text).map_err(|NotAllowed(allowed)| self.not_allowed(allowed)),
            None => Err(match parse("") {
                Err(NotAllowed(allowed)) => self.not_allowed(format!("a text: {allowed}")),
                Ok(_) => self.not_allowed("a text"),
            }),
        }
    }

    /// The error for a value that this key does not take.
    pub(super) fn not_allowed(&self, allowed: impl Into<String>) -> Error {
        let (path, value) = (self.path_in_words(), self.shown());
        Error::NotAllowed { path, value, allowed: allowed.into() }
    }

    /// The path; that of the document is not empty.
    pub(super) fn path_in_words(&self) -> String {
        if self.path.is_empty() { "the document".into() } else { self.path.clone() }
    }

    /// The value as error messages show it: without anything that may be a password.
    fn shown(&self) -> String {
        let is_public =
            [".name", ".role", ".ssid", ".country"].iter().any(|end| self.path.ends_with(end));
        let may_be_secret =
            ["users", "network.wifi"].iter().any(|start| self.path.starts_with(start));
        match self.value {
            Value::Object(_) => "an object".into(),
            Value::Array(_) => "a list".into(),
            _ if may_be_secret && !is_public => "this value".into(),
            scalar => shorten(scalar.to_string()),
        }
    }
}

/// An object whose keys are all known.
#[derive(Debug)]
pub(super) struct Object<'a> {
    path: String,
    members: &'a Map<String, Value>,
}

impl<'a> Object<'a> {
    /// The value of `key` by `read`, or `default` when the key is not there.
    pub(super) fn get<T>(
        &self,
        key: &str,
        default: T,
        read: impl FnOnce(&Entry<'a>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.entry(key).map_or(Ok(default), |entry| read(&entry))
    }

    /// The value of `key` by `read`; `allowed` says what to write when the key is not there.
    pub(super) fn require<T>(
        &self,
        key: &str,
        allowed: &str,
        read: impl FnOnce(&Entry<'a>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let entry = self.entry(key).ok_or_else(|| Error::MissingKey {
            path: join(&self.path, key),
            allowed: allowed.to_owned(),
        })?;
        read(&entry)
    }

    fn entry(&self, key: &str) -> Option<Entry<'a>> {
        let value = self.members.get(key)?;
        Some(Entry { path: join(&self.path, key), value })
    }
}

/// At most [`MAX_SHOWN`] characters of a wrong value.
fn shorten(text: String) -> String {
    match text.char_indices().nth(MAX_SHOWN) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// The known key that takes the fewest edits to reach; one that only lacks its end (a unit, a
/// plural) counts as one edit away.
fn nearest<'a>(key: &str, known: &[&'a str]) -> &'a str {
    let key = key.to_lowercase();
    let distance = |known: &str| if known.starts_with(&key) { 1 } else { edits(&key, known) };
    known.iter().min_by_key(|known| distance(known)).expect("every object has known keys")
}

/// Levenshtein distance: insertions, deletions and replacements of characters.
fn edits(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (index, from) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = index + 1;
        for column in 0..to.len() {
            let replaced = diagonal + usize::from(from != to[column]);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(row[column] + 1).min(diagonal + 1);
        }
    }
    row[to.len()]
}

/// A JSON value in which no object has a name twice.
struct Unique(Value);

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(UniqueVisitor).map(Self)
    }
}

struct UniqueVisitor;

impl<'de> Visitor<'de> for UniqueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Value, A::Error> {
        let mut elements = Vec::new();
        while let Some(Unique(element)) = from.next_element()? {
            elements.push(element);
        }
        Ok(Value::Array(elements))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<Value, A::Error> {
        let mut members = Map::new();
        while let Some((key, Unique(value))) = from.next_entry::<String, Unique>()? {
            if members.contains_key(&key) {
                return Err(A::Error::custom(format_args!("the key {key:?} is there twice")));
            }
            members.insert(key, value);
        }
        Ok(Value::Object(members))
    }
}

/// Characters of a wrong value that a message repeats.
const MAX_SHOWN: usize = 60;
