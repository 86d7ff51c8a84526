//! Moments: points in time, in UTC.

use crate::refusal::{Code, Refusal};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Milliseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Moment(pub i64);

impl Moment {
    /// The name that a snapshot taken at this moment gets by default (C27, R14).
    pub fn as_default_name(self) -> String {
        self.timestamp().strftime("%Y-%m-%d %H:%M:%SZ").to_string()
    }

    /// RFC 3339, with milliseconds.
    pub fn to_rfc3339(self) -> String {
        self.timestamp().strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string()
    }

    /// The moment that RFC 3339 text says.
    ///
    /// # Errors
    /// A refusal when it says none.
    pub fn from_rfc3339(text: &str) -> Result<Self, Refusal> {
        text.parse::<Timestamp>().map(|at| Self(at.as_millisecond())).map_err(|error| {
            Refusal::new(Code::InvalidRequest)
                .detail(format!("{text:?} is no moment: {error}"))
                .hint("such as 2026-11-20T14:46:05Z")
        })
    }

    fn timestamp(self) -> Timestamp {
        Timestamp::from_millisecond(self.0).unwrap_or(Timestamp::UNIX_EPOCH)
    }
}

#[cfg(test)]
mod tests {
    use super::Moment;

    /// C27, R14.
    #[test]
    fn the_default_name_holds_date_and_time() {
        let moment = Moment(1_795_185_965_123);
        assert_eq!(moment.as_default_name(), "2026-11-20 14:46:05Z");
        assert_eq!(moment.to_rfc3339(), "2026-11-20T14:46:05.123Z");
        assert_eq!(Moment::from_rfc3339(&moment.to_rfc3339()), Ok(moment));
        assert!(Moment::from_rfc3339("tomorrow").is_err());
    }
}
