//! Journals in memory, which outlive who writes them.

use crate::journal::{Sheet, Shelf};
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use tintype_model::EffectId;

/// Says before a step whether it goes well; it may unwind instead, as if all died there.
type Fate = Arc<dyn Fn() -> bool + Send + Sync>;

/// A shelf in memory. Its copies are the same shelf.
#[derive(Clone)]
pub struct Memory {
    texts: Arc<Mutex<BTreeMap<EffectId, String>>>,
    fate: Fate,
}

struct Page {
    id: EffectId,
    shelf: Memory,
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory").field("journals", &self.len()).finish_non_exhaustive()
    }
}

impl Default for Memory {
    /// One on which everything goes well.
    fn default() -> Self {
        Self::obeying(|| true)
    }
}

impl Memory {
    /// One that asks before each step whether it goes well.
    pub fn obeying(fate: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self { texts: Arc::default(), fate: Arc::new(fate) }
    }

    /// How many effects have a journal.
    pub fn len(&self) -> usize {
        self.texts().len()
    }

    /// Whether no effect has one.
    pub fn is_empty(&self) -> bool {
        self.texts().is_empty()
    }

    /// Whether an effect has a journal.
    pub fn knows(&self, id: EffectId) -> bool {
        self.texts().contains_key(&id)
    }

    fn texts(&self) -> MutexGuard<'_, BTreeMap<EffectId, String>> {
        self.texts.lock().expect("no holder panics")
    }

    fn add(&self, id: EffectId, text: &str) {
        self.texts().entry(id).or_default().push_str(text);
    }
}

impl Shelf for Memory {
    fn read(&self, id: EffectId) -> io::Result<Option<String>> {
        Ok(self.texts().get(&id).cloned())
    }

    fn open(&self, id: EffectId) -> io::Result<Box<dyn Sheet>> {
        if !(self.fate)() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.add(id, "");
        Ok(Box::new(Page { id, shelf: self.clone() }))
    }

    fn remove(&self, id: EffectId) {
        if (self.fate)() {
            self.texts().remove(&id);
        }
    }

    fn all(&self) -> Vec<EffectId> {
        self.texts().keys().copied().collect()
    }
}

impl Sheet for Page {
    /// Before it is written somebody may die, then half of it may be written, then all.
    fn append(&mut self, text: &str, _durably: bool) -> io::Result<()> {
        let full = || Err(io::ErrorKind::StorageFull.into());
        if !(self.shelf.fate)() {
            return full();
        }
        let half = text.len() / 2;
        self.shelf.add(self.id, &text[..half]);
        if !(self.shelf.fate)() {
            return full();
        }
        self.shelf.add(self.id, &text[half..]);
        (self.shelf.fate)();
        Ok(())
    }
}
