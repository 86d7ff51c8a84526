//! What nothing can be derived from: the time, and ids that nobody had before.

use std::time::{SystemTime, UNIX_EPOCH};
use tintype_model::Moment;
use uuid::Uuid;

/// Where the time and new ids come from.
pub trait Ground: Send + Sync {
    /// Now.
    fn now(&self) -> Moment;

    /// An id that nobody had before.
    fn fresh(&self) -> Uuid;
}

/// The clock and the random numbers of the machine we run on.
#[derive(Clone, Copy, Debug)]
pub struct Machine;

impl Ground for Machine {
    fn now(&self) -> Moment {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Moment(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }

    fn fresh(&self) -> Uuid {
        Uuid::new_v4()
    }
}

/// Does a piece of work in the background, which may take a tenth of the time at most.
pub(super) async fn paced<T>(work: impl Future<Output = T>) -> T {
    let begun = tokio::time::Instant::now();
    let done = work.await;
    tokio::time::sleep(begun.elapsed() * 9).await;
    done
}
