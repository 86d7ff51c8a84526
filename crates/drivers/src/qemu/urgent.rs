//! Who holds a guest does not wait for a processor that somebody else is busy with: a guest stands
//! still for as long as that takes, and half a second was seen on a host whose guests kept all of
//! its processors busy.

use thread_priority::{
    Error, RealtimeThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy,
    set_thread_priority_and_policy, thread_native_id, thread_schedule_policy_param,
};

/// Before all that is not in real time, after all that is. Scale: 0 to 99.
const LEAST: u8 = 1;

/// While it lives, this thread comes before all that is not urgent. What is urgent takes little
/// time: it asks, waits and notes. Nothing is started meanwhile, for that would be as urgent.
pub(super) struct Urgent {
    before: Option<(ThreadSchedulePolicy, ThreadPriority)>,
}

impl Urgent {
    /// Needs `CAP_SYS_NICE`; without it the thread waits its turn, as others do.
    pub(super) fn begin() -> Self {
        let before = thread_schedule_policy_param(thread_native_id()).ok();
        let before = before.map(|(policy, params)| (policy, ThreadPriority::from_posix(params)));
        if let Err(error) = hurry() {
            tracing::debug!(?error, "who holds a guest waits for processors");
            return Self { before: None };
        }
        Self { before }
    }
}

impl Drop for Urgent {
    fn drop(&mut self) {
        if let Some((policy, priority)) = self.before {
            let _ = set_thread_priority_and_policy(thread_native_id(), priority, policy);
        }
    }
}

/// Makes this thread urgent.
fn hurry() -> Result<(), Error> {
    let priority = ThreadPriority::Crossplatform(
        LEAST.try_into().map_err(|_| Error::Priority("no such priority"))?,
    );
    let policy = ThreadSchedulePolicy::Realtime(RealtimeThreadSchedulePolicy::RoundRobin);
    set_thread_priority_and_policy(thread_native_id(), priority, policy)
}
