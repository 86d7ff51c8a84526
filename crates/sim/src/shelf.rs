//! Journals in memory, which outlive who writes them.

use crate::fate::Fate;
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};
use tintype_agent::{Sheet, Shelf};
use tintype_model::EffectId;

type Texts = Arc<Mutex<BTreeMap<EffectId, String>>>;

/// A shelf that survives every death.
#[derive(Clone, Debug)]
pub(crate) struct Memory {
    texts: Texts,
    fate: Arc<Fate>,
}

struct Page {
    id: EffectId,
    shelf: Memory,
}

impl Memory {
    pub(crate) fn new(fate: Arc<Fate>) -> Self {
        Self { texts: Texts::default(), fate }
    }

    /// How many effects have a journal.
    pub(crate) fn len(&self) -> usize {
        self.texts.lock().expect("no holder panics").len()
    }

    /// Whether an effect has a journal.
    pub(crate) fn knows(&self, id: EffectId) -> bool {
        self.texts.lock().expect("no holder panics").contains_key(&id)
    }

    fn add(&self, id: EffectId, text: &str) {
        self.texts.lock().expect("no holder panics").entry(id).or_default().push_str(text);
    }
}

impl Shelf for Memory {
    fn read(&self, id: EffectId) -> io::Result<Option<String>> {
        Ok(self.texts.lock().expect("no holder panics").get(&id).cloned())
    }

    fn open(&self, id: EffectId) -> io::Result<Box<dyn Sheet>> {
        if !self.fate.step() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.add(id, "");
        Ok(Box::new(Page { id, shelf: self.clone() }))
    }

    fn remove(&self, id: EffectId) {
        if self.fate.step() {
            self.texts.lock().expect("no holder panics").remove(&id);
        }
    }

    fn all(&self) -> Vec<EffectId> {
        self.texts.lock().expect("no holder panics").keys().copied().collect()
    }
}

impl Sheet for Page {
    /// Before it is written somebody may die, then half of it may be written, then all.
    fn append(&mut self, text: &str, _durably: bool) -> io::Result<()> {
        let full = || Err(io::ErrorKind::StorageFull.into());
        if !self.shelf.fate.step() {
            return full();
        }
        let half = text.len() / 2;
        self.shelf.add(self.id, &text[..half]);
        if !self.shelf.fate.step() {
            return full();
        }
        self.shelf.add(self.id, &text[half..]);
        self.shelf.fate.step();
        Ok(())
    }
}
