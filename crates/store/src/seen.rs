//! Timelines that are read before it is one's turn to write: reading takes most of the time, and
//! many read beside each other, while one writes.

use crate::{Store, StoreError, Unit};
use tintype_model::VmId;
use tintype_model::timeline::Timeline;

/// A machine's timeline as it was read.
struct Seen {
    timeline: Timeline,
    revision: i64,
}

impl Store {
    /// Goes on from reading to writing about a machine; none if it is gone. What was read may be
    /// old then, but the timeline is what it is now.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn write_about(
        &self,
        mut reads: Unit,
        vm: VmId,
    ) -> Result<Option<(Unit, Timeline)>, StoreError> {
        let Some(seen) = reads.see(vm)? else { return Ok(None) };
        drop(reads);
        // Who is ready goes first, also where reading and writing is one connection's.
        tokio::task::yield_now().await;
        let mut unit = self.write().await?;
        Ok(unit.still(seen)?.map(|timeline| (unit, timeline)))
    }
}

impl Unit {
    fn see(&mut self, vm: VmId) -> Result<Option<Seen>, StoreError> {
        let Some(revision) = self.revision(vm)? else { return Ok(None) };
        let timeline = self.timeline(vm)?;
        Ok(timeline.map(|timeline| Seen { timeline, revision }))
    }

    /// The timeline that was seen, read again if it was recorded since.
    fn still(&mut self, seen: Seen) -> Result<Option<Timeline>, StoreError> {
        let vm = seen.timeline.vm.id;
        if self.revision(vm)? != Some(seen.revision) {
            return self.timeline(vm);
        }
        debug_assert!(
            self.timeline(vm)?.as_ref() == Some(&seen.timeline),
            "what was read of {vm} is old, and was not counted"
        );
        Ok(Some(seen.timeline))
    }
}
