//! What is said over the control socket: one JSON line each way.

use serde::{Deserialize, Serialize};

/// Version of requests and responses. An agent answers its own version only.
pub(crate) const VERSION: u32 = 1;
/// Longest request line in bytes.
pub(crate) const MAX_REQUEST: usize = 4096;
/// Longest response line in bytes that a client reads.
pub(crate) const MAX_RESPONSE: u64 = 8 * 1024 * 1024;

/// A request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Request {
    /// [`VERSION`].
    pub(crate) v: u32,
    /// What is asked.
    #[serde(flatten)]
    pub(crate) ask: Ask,
}

/// What is asked of the agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "kebab-case")]
pub(crate) enum Ask {
    /// [`Status`](crate::report::Status).
    Status,
    /// A list of [`Link`](crate::report::Link).
    Links,
    /// A list of [`Seal`](crate::report::Seal).
    Seals,
    /// A list of [`Route`](crate::report::Route).
    Routes,
    /// A [`Trace`](crate::report::Trace).
    Trace {
        /// An address, or the name or id of a neighbour.
        destination: String,
    },
    /// The files of the membership changed: read them again. The answer is the [`Town`](crate::report::Town) or null.
    TownChanged,
}

/// A response: one of the two is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Response {
    /// [`VERSION`].
    pub(crate) v: u32,
    /// The answer.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) ok: Option<serde_json::Value>,
    /// Why there is none.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) error: Option<String>,
}

impl From<Result<serde_json::Value, String>> for Response {
    fn from(result: Result<serde_json::Value, String>) -> Self {
        match result {
            Ok(value) => Self { v: VERSION, ok: Some(value), error: None },
            Err(error) => Self { v: VERSION, ok: None, error: Some(error) },
        }
    }
}

/// A request in a line, or why it is none.
pub(crate) fn parse(line: &[u8]) -> Result<Ask, String> {
    #[derive(Deserialize)]
    struct Versioned {
        v: u32,
    }
    let Versioned { v } =
        serde_json::from_slice(line).map_err(|error| format!("the request is no versioned JSON object: {error}"))?;
    if v != VERSION {
        return Err(format!("this agent (grange {}) speaks version {VERSION} and not {v}", env!("CARGO_PKG_VERSION")));
    }
    serde_json::from_slice::<Request>(line)
        .map(|request| request.ask)
        .map_err(|error| format!("unknown request: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_of_requests_is_stable() {
        let line = serde_json::to_string(&Request { v: 1, ask: Ask::Trace { destination: "fd00::1".into() } }).unwrap();
        assert_eq!(line, r#"{"v":1,"ask":"trace","destination":"fd00::1"}"#);
        assert_eq!(parse(line.as_bytes()), Ok(Ask::Trace { destination: "fd00::1".into() }));
        assert_eq!(parse(br#"{"v":1,"ask":"town-changed"}"#), Ok(Ask::TownChanged));
    }

    #[test]
    fn wrong_requests_are_told_apart() {
        assert!(parse(b"hello").unwrap_err().contains("no versioned JSON"));
        assert!(parse(br#"{"v":9,"ask":"status"}"#).unwrap_err().contains("speaks version 1 and not 9"));
        assert!(parse(br#"{"v":1,"ask":"dance"}"#).unwrap_err().contains("unknown request"));
    }
}
