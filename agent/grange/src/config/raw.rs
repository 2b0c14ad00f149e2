//! A value as somebody gave it, before it is known to be right.

use std::fmt;

use toml::{Spanned, de::DeValue};

/// A TOML value that borrows nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Raw {
    /// A string.
    Text(String),
    /// An integer; `None` if it is beyond 64 bits.
    Integer(Option<i64>, String),
    /// `true` or `false`.
    Boolean(bool),
    /// A float or a date: no setting takes one.
    Other(String),
    /// An array.
    List(Vec<Self>),
    /// A table.
    Section,
}

impl Raw {
    /// The text, if it is one.
    pub(crate) fn text(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }
}

impl From<&DeValue<'_>> for Raw {
    fn from(value: &DeValue<'_>) -> Self {
        match value {
            DeValue::String(text) => Self::Text(text.clone().into_owned()),
            DeValue::Integer(number) => {
                Self::Integer(i64::from_str_radix(number.as_str(), number.radix()).ok(), number.to_string())
            }
            DeValue::Float(number) => Self::Other(number.to_string()),
            DeValue::Boolean(value) => Self::Boolean(*value),
            DeValue::Datetime(date) => Self::Other(date.to_string()),
            DeValue::Array(list) => Self::List(list.iter().map(Spanned::as_ref).map(Self::from).collect()),
            DeValue::Table(_) => Self::Section,
        }
    }
}

/// As a person would write it, shortened.
impl fmt::Display for Raw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => {
                let short: String = text.chars().take(60).collect();
                let dots = if short.len() < text.len() { "..." } else { "" };
                write!(f, "{:?}", format!("{short}{dots}"))
            }
            Self::Integer(_, text) | Self::Other(text) => f.write_str(text),
            Self::Boolean(value) => value.fmt(f),
            Self::List(list) => match list.len() {
                0 => f.write_str("an empty list"),
                1 => f.write_str("a list of 1 entry"),
                many => write!(f, "a list of {many} entries"),
            },
            Self::Section => f.write_str("a section"),
        }
    }
}
