//! The host's journal: a file for each effect, with the effect, notes and how it ended, each on a
//! line. It is there from before the first change until the outcome is recorded elsewhere.

use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use tintype_drivers::diary::now_ms;
use tintype_drivers::steps;
use tintype_drivers::{Diary, Note};
use tintype_model::effect::{Effect, Outcome};
use tintype_model::{EffectId, Moment};
use tintype_wire::agent::Progress;

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Line {
    Begun(Box<Effect>),
    Noted(Note),
    Ended(Outcome),
}

/// What the journal knows of an effect.
#[derive(Debug, PartialEq)]
pub(crate) enum Known {
    /// Nothing: it has not begun.
    Nothing,
    /// It was begun, and these notes were made.
    Begun(Vec<Note>),
    /// It has ended.
    Ended(Outcome),
}

/// Where journals lie.
pub trait Shelf: Send + Sync + std::fmt::Debug {
    /// All that is written of an effect; nothing if nothing is.
    ///
    /// # Errors
    /// When it cannot be read.
    fn read(&self, id: EffectId) -> io::Result<Option<String>>;

    /// Opens the journal of an effect to write on, making it if there is none.
    ///
    /// # Errors
    /// When it cannot be written to.
    fn open(&self, id: EffectId) -> io::Result<Box<dyn Sheet>>;

    /// Throws the journal of an effect away.
    fn remove(&self, id: EffectId);

    /// The effects that have a journal.
    fn all(&self) -> Vec<EffectId>;
}

/// What is written on.
pub trait Sheet: Send {
    /// Adds to the end; `durably` is on disk when it returns, with the name it is found by.
    ///
    /// # Errors
    /// When it cannot be written; a part of it may be.
    fn append(&mut self, text: &str, durably: bool) -> io::Result<()>;
}

/// The journals of a host.
#[derive(Debug)]
pub struct Journals {
    shelf: Box<dyn Shelf>,
}

impl Journals {
    /// Those on this shelf.
    pub fn on(shelf: impl Shelf + 'static) -> Self {
        Self { shelf: Box::new(shelf) }
    }

    /// What is known of an effect.
    pub(crate) fn known(&self, id: EffectId) -> io::Result<Known> {
        let mut known = Known::Nothing;
        for line in self.lines(id)? {
            known = match (known, line) {
                (Known::Begun(mut notes), Line::Noted(note)) => {
                    notes.push(note);
                    Known::Begun(notes)
                }
                (_, Line::Begun(_)) => Known::Begun(Vec::new()),
                (_, Line::Ended(outcome)) => Known::Ended(outcome),
                (other, Line::Noted(_)) => other,
            };
        }
        Ok(known)
    }

    /// An effect and how it ended, if it did.
    pub(crate) fn ended(&self, id: EffectId) -> io::Result<Option<(Effect, Outcome)>> {
        let (mut begun, mut ended) = (None, None);
        for line in self.lines(id)? {
            match line {
                Line::Begun(effect) => begun = Some(*effect),
                Line::Noted(_) => {}
                Line::Ended(outcome) => ended = Some(outcome),
            }
        }
        Ok(begun.zip(ended))
    }

    /// An effect that was begun.
    pub(crate) fn begun(&self, id: EffectId) -> io::Result<Option<Effect>> {
        Ok(self.lines(id)?.into_iter().find_map(|line| match line {
            Line::Begun(effect) => Some(*effect),
            Line::Noted(_) | Line::Ended(_) => None,
        }))
    }

    /// What is written of an effect. A line that was not written whole is as if not written.
    fn lines(&self, id: EffectId) -> io::Result<Vec<Line>> {
        let text = self.shelf.read(id)?.unwrap_or_default();
        Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
    }

    /// The effects that have a journal.
    pub(crate) fn all(&self) -> Vec<EffectId> {
        self.shelf.all()
    }

    /// Begins a journal, durably, or opens the one in which this much is known.
    pub(crate) fn begin(
        &self,
        id: EffectId,
        effect: &Effect,
        known: &Known,
        progress: Arc<Mutex<Progress>>,
        stop: Arc<AtomicBool>,
    ) -> io::Result<Journal> {
        let sheet = match self.shelf.open(id) {
            Err(_) if *known != Known::Nothing => Box::new(Full),
            opened => opened?,
        };
        let mut journal = Journal { sheet, progress, stop };
        // A line that a crash cut short must not run into the next. If the disk is full the effect
        // is recovered all the same.
        let _ = journal.sheet.append("\n", false);
        if *known == Known::Nothing {
            journal.write(&Line::Begun(Box::new(effect.clone())), true)?;
        }
        Ok(journal)
    }

    pub(crate) fn forget(&self, id: EffectId) {
        steps::around("journal forget", || self.shelf.remove(id));
    }
}

/// A folder of journals, a file for each.
#[derive(Debug)]
pub struct Files {
    folder: PathBuf,
}

impl Files {
    /// Opens the folder, making it if there is none.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn open(folder: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&folder)?;
        Ok(Self { folder })
    }

    fn path(&self, id: EffectId) -> PathBuf {
        self.folder.join(format!("{id}.jsonl"))
    }
}

impl Shelf for Files {
    fn read(&self, id: EffectId) -> io::Result<Option<String>> {
        match fs::read_to_string(self.path(id)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            text => text.map(Some),
        }
    }

    fn open(&self, id: EffectId) -> io::Result<Box<dyn Sheet>> {
        let path = self.path(id);
        let fresh = !path.exists();
        let file = OpenOptions::new().create(true).append(true).open(&path)?;
        if fresh {
            File::open(&self.folder)?.sync_all()?;
        }
        Ok(Box::new(file))
    }

    fn remove(&self, id: EffectId) {
        let _ = fs::remove_file(self.path(id));
    }

    fn all(&self) -> Vec<EffectId> {
        let files = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let id = |file: fs::DirEntry| file.path().file_stem()?.to_str()?.parse().ok();
        files.filter_map(id).collect()
    }
}

impl Sheet for File {
    fn append(&mut self, text: &str, durably: bool) -> io::Result<()> {
        self.write_all(text.as_bytes())?;
        if durably { self.sync_data() } else { Ok(()) }
    }
}

/// What cannot be written on. An effect that was begun is recovered even so: to answer that it
/// failed, without having looked, might not be true.
struct Full;

impl Sheet for Full {
    fn append(&mut self, _text: &str, _durably: bool) -> io::Result<()> {
        Err(io::ErrorKind::StorageFull.into())
    }
}

/// The journal of one effect.
pub(crate) struct Journal {
    sheet: Box<dyn Sheet>,
    progress: Arc<Mutex<Progress>>,
    /// Set when the effect is to be undone, or to give way.
    stop: Arc<AtomicBool>,
}

impl Journal {
    /// Notes how the effect ended, durably.
    pub(crate) fn end(&mut self, outcome: &Outcome) -> io::Result<()> {
        self.write(&Line::Ended(outcome.clone()), true)
    }

    fn write(&mut self, line: &Line, durably: bool) -> io::Result<()> {
        let label = match line {
            Line::Begun(_) => "journal begin",
            Line::Noted(_) => "journal note",
            Line::Ended(_) => "journal end",
        };
        let mut text = serde_json::to_string(line)?;
        text.push('\n');
        steps::around(label, || self.sheet.append(&text, durably))
    }
}

impl Diary for Journal {
    fn note(&mut self, note: Note) -> io::Result<()> {
        self.write(&Line::Noted(note), false)
    }

    fn note_durably(&mut self, note: Note) -> io::Result<()> {
        self.write(&Line::Noted(note), true)
    }

    fn tell(&mut self, step: &str, fraction: f64) {
        let mut progress = self.progress.lock().expect("no holder panics");
        if progress.step != step {
            *progress = begun(step);
        }
        progress.fraction = fraction.clamp(0.0, 1.0);
    }

    fn is_cancelled(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }
}

/// A step that begins now.
pub fn begun(step: &str) -> Progress {
    let since = Moment(i64::try_from(now_ms()).unwrap_or(i64::MAX));
    Progress { fraction: 0.0, step: step.to_owned(), since }
}

#[cfg(test)]
mod tests {
    use super::{Files, Journals, Known};
    use std::sync::{Arc, Mutex};
    use tintype_drivers::{Diary, Note};
    use tintype_model::effect::{Effect, Facts, Outcome};
    use tintype_model::{EffectId, VmId};
    use tintype_wire::agent::Progress;

    fn progress() -> Arc<Mutex<Progress>> {
        Arc::new(Mutex::new(super::begun("begun")))
    }

    fn journals() -> (tempfile::TempDir, Journals) {
        let folder = tempfile::tempdir().unwrap();
        let files = Files::open(folder.path().to_owned()).unwrap();
        (folder, Journals::on(files))
    }

    fn effect() -> (EffectId, Effect) {
        let vm = VmId(uuid::Uuid::new_v4());
        (EffectId(uuid::Uuid::new_v4()), Effect::DeleteVm { vm })
    }

    fn begin(journals: &Journals, id: EffectId, effect: &Effect) -> super::Journal {
        let known = journals.known(id).unwrap();
        journals.begin(id, effect, &known, progress(), Arc::default()).unwrap()
    }

    /// A crash between making the file and its first line leaves nothing that could be taken for a
    /// journal that was begun.
    #[test]
    fn an_empty_journal_is_begun_again() {
        let (_folder, journals) = journals();
        let (id, effect) = effect();
        drop(journals.shelf.open(id).unwrap());
        assert_eq!(journals.known(id).unwrap(), Known::Nothing);
        begin(&journals, id, &effect).note(Note::Switched).unwrap();
        assert_eq!(journals.known(id).unwrap(), Known::Begun(vec![Note::Switched]));
    }

    #[test]
    fn what_was_written_is_known_and_half_a_line_is_not() {
        let (_folder, journals) = journals();
        let (id, effect) = effect();
        assert_eq!(journals.known(id).unwrap(), Known::Nothing);
        let mut journal = begin(&journals, id, &effect);
        journal.note(Note::Switched).unwrap();
        journal.sheet.append("{\"noted\": \"arm", false).unwrap();
        assert_eq!(journals.known(id).unwrap(), Known::Begun(vec![Note::Switched]));
        let mut again = begin(&journals, id, &effect);
        let outcome = Outcome::Done(Facts::default());
        again.end(&outcome).unwrap();
        assert_eq!(journals.known(id).unwrap(), Known::Ended(outcome));
        journals.forget(id);
        assert_eq!(journals.known(id).unwrap(), Known::Nothing);
    }
}
