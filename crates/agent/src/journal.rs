//! The host's journal: a file for each effect, with the effect, notes and how it ended, each on a
//! line. It is there from before the first change until the outcome is recorded elsewhere.

use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
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

/// The folder of journals.
#[derive(Debug)]
pub(crate) struct Journals {
    folder: PathBuf,
}

impl Journals {
    pub(crate) fn open(folder: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&folder)?;
        Ok(Self { folder })
    }

    fn path(&self, id: EffectId) -> PathBuf {
        self.folder.join(format!("{id}.jsonl"))
    }

    /// What is known of an effect. A line that was not written whole is as if not written.
    pub(crate) fn known(&self, id: EffectId) -> io::Result<Known> {
        let text = match fs::read_to_string(self.path(id)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Known::Nothing),
            other => other?,
        };
        let mut known = Known::Nothing;
        for line in text.lines().filter_map(|line| serde_json::from_str(line).ok()) {
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

    /// Begins a journal, durably, or opens the one that was begun.
    pub(crate) fn begin(
        &self,
        id: EffectId,
        effect: &Effect,
        progress: Arc<Mutex<Progress>>,
        stop: Arc<AtomicBool>,
    ) -> io::Result<Journal> {
        let path = self.path(id);
        let fresh = !path.exists();
        let file = OpenOptions::new().create(true).append(true).open(&path)?;
        let mut journal = Journal { file, progress, stop };
        if fresh {
            journal.write(&Line::Begun(Box::new(effect.clone())), true)?;
            sync_folder(&self.folder)?;
        } else {
            // A line that a crash cut short must not run into the next. If the disk is full the
            // effect is recovered all the same.
            let _ = journal.file.write_all(b"\n");
        }
        Ok(journal)
    }

    pub(crate) fn forget(&self, id: EffectId) {
        let _ = steps::around("journal forget", || fs::remove_file(self.path(id)));
    }
}

/// The journal of one effect.
#[derive(Debug)]
pub(crate) struct Journal {
    file: File,
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
        steps::around(label, || {
            self.file.write_all(text.as_bytes())?;
            if durably { self.file.sync_data() } else { Ok(()) }
        })
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
pub(crate) fn begun(step: &str) -> Progress {
    let since = Moment(i64::try_from(now_ms()).unwrap_or(i64::MAX));
    Progress { fraction: 0.0, step: step.to_owned(), since }
}

fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::{Journals, Known};
    use std::io::Write;
    use std::sync::{Arc, Mutex};
    use tintype_drivers::{Diary, Note};
    use tintype_model::effect::{Effect, Facts, Outcome};
    use tintype_model::{EffectId, VmId};
    use tintype_wire::agent::Progress;

    fn progress() -> Arc<Mutex<Progress>> {
        Arc::new(Mutex::new(super::begun("begun")))
    }

    #[test]
    fn what_was_written_is_known_and_half_a_line_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let journals = Journals::open(folder.path().to_owned()).unwrap();
        let id = EffectId(uuid::Uuid::new_v4());
        let effect = Effect::DeleteVm { vm: VmId(uuid::Uuid::new_v4()) };
        assert_eq!(journals.known(id).unwrap(), Known::Nothing);
        let mut journal = journals.begin(id, &effect, progress(), Arc::default()).unwrap();
        journal.note(Note::Switched).unwrap();
        journal.file.write_all(b"{\"noted\": \"arm").unwrap();
        assert_eq!(journals.known(id).unwrap(), Known::Begun(vec![Note::Switched]));
        let mut again = journals.begin(id, &effect, progress(), Arc::default()).unwrap();
        let outcome = Outcome::Done(Facts::default());
        again.end(&outcome).unwrap();
        assert_eq!(journals.known(id).unwrap(), Known::Ended(outcome));
        journals.forget(id);
        assert_eq!(journals.known(id).unwrap(), Known::Nothing);
    }
}
