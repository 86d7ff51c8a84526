//! The file that memory is saved in: QEMU's migration stream version 3 with `mapped-ram`, every
//! page at a place of its own. Source: QEMU's `docs/devel/migration/mapped-ram.rst` and what
//! 10.0.2 writes; described in `docs/format/memory.md`.
//!
//! A background snapshot leaves the page bitmaps empty, and QEMU then loads no page at all. The
//! pages are there, and a page that was all zeros is a hole: so the bitmaps are filled from what
//! the filesystem says is data, and any QEMU can load the file.

use super::stream::{
    COMMAND, CONFIGURATION, DESCRIPTION, END, END_OF_ROUND, FOOTER, MAGIC, MEM_SIZE, PAGE,
    SECTION_END, SECTION_FULL, SECTION_PART, SECTION_START, SUBSECTION, VERSION,
};
use crate::steps;
use rustix::fs::{SeekFrom, seek};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Larger than the device state of any machine, in bytes.
const DEVICES_MOST: u64 = 64 << 20;
/// More blocks than any machine has.
const BLOCKS_MOST: usize = 1024;

/// How the section begins that says whether the machine ran: the length of its name, its name,
/// instance 0, version 1. Then the length of a word, and the word in [`STATE_SPACE`] bytes.
/// Source: QEMU's `migration/global_state.c`.
const STATE_SECTION: &[u8] = b"\x0bglobalstate\0\0\0\0\0\0\0\x01";
/// The room for that word.
const STATE_SPACE: usize = 100;

/// The name of the block that is the guest's RAM.
pub(super) const MAIN: &str = "pc.ram";

/// What is wrong with a memory file.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// It cannot be read.
    #[error("the memory file cannot be read: {0}")]
    Io(#[from] io::Error),
    /// It is not what it should be.
    #[error("the memory file is damaged: {0}")]
    Damaged(&'static str),
}

/// Where the memory of one RAM block lies.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Block {
    /// QEMU's name for it, such as `pc.ram`.
    pub name: String,
    /// Its size.
    pub length: u64,
    /// Where its page bitmap lies: one bit a page, the lowest first.
    pub bitmap_at: u64,
    /// Where its pages lie.
    pub pages_at: u64,
}

/// The layout of a memory file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Layout {
    /// The machine type that wrote it.
    pub machine: String,
    /// The number of the section that holds RAM.
    pub section: u32,
    /// Its RAM blocks.
    pub blocks: Vec<Block>,
    /// Where the state of the devices begins.
    pub devices_at: u64,
}

/// Says in a memory file that the machine ran, so that QEMU has it run once it is loaded. It was
/// held while it was saved.
pub(super) fn say_that_it_ran(file: &File) -> Result<(), FormatError> {
    let layout = Layout::read(file)?;
    let devices = layout.devices(file)?;
    let found = devices.windows(STATE_SECTION.len()).position(|bytes| bytes == STATE_SECTION);
    let at = found.ok_or(FormatError::Damaged("it does not say whether the machine ran"))?;
    let word = b"running\0";
    let mut state = [0; 4 + STATE_SPACE];
    state[3] = word.len() as u8;
    state[4..][..word.len()].copy_from_slice(word);
    let place = layout.devices_at + (at + STATE_SECTION.len()) as u64;
    Ok(file.write_all_at(&state, place)?)
}

impl Layout {
    /// Reads the layout of a whole file.
    ///
    /// # Errors
    /// When the file cannot be read, or ends too early, or is something else.
    pub fn read(file: &File) -> Result<Self, FormatError> {
        let length = file.metadata()?.len();
        let mut at = Cursor { file, at: 0, length };
        at.expect(MAGIC, "it does not begin like a saved machine")?;
        at.expect(VERSION, "its version is unknown")?;
        let machine = at.configuration()?;
        at.expect(SECTION_START, "it has no RAM section")?;
        let section = at.u32()?;
        if at.name()? != "ram" {
            return Err(FormatError::Damaged("its first section is not RAM"));
        }
        at.skip(8)?;
        let total = at.u64()?;
        if total & MEM_SIZE == 0 {
            return Err(FormatError::Damaged("its RAM section does not begin with sizes"));
        }
        let blocks = at.blocks(total & !(PAGE - 1))?;
        at.round_end(section)?;
        loop {
            match at.u8()? {
                SECTION_PART | SECTION_END => {
                    at.expect(section, "it has another section within RAM")?;
                    at.round_end(section)?;
                }
                COMMAND => at.command()?,
                SECTION_FULL => break,
                _ => return Err(FormatError::Damaged("it has no device state after RAM")),
            }
        }
        Ok(Self { machine, section, blocks, devices_at: at.at - 1 })
    }

    /// Whether this is the memory of such a machine.
    ///
    /// # Errors
    /// When it is not, with the reason.
    pub fn fits(&self, machine: &str, memory_bytes: u64) -> Result<(), FormatError> {
        let short = machine.strip_prefix("pc-").unwrap_or(machine);
        if self.machine != machine && self.machine != short {
            return Err(FormatError::Damaged("it was saved by another type of machine"));
        }
        match self.main() {
            Some(ram) if ram.length == memory_bytes => Ok(()),
            _ => Err(FormatError::Damaged("its RAM has another size than the machine's")),
        }
    }

    /// The block that is the guest's RAM.
    pub(super) fn main(&self) -> Option<&Block> {
        self.blocks.iter().find(|block| block.name == MAIN)
    }

    /// The state of the devices, without the end of the stream and the description that follows it.
    ///
    /// # Errors
    /// When the file cannot be read, or has no end.
    pub fn devices(&self, file: &File) -> Result<Vec<u8>, FormatError> {
        let length = file.metadata()?.len().saturating_sub(self.devices_at);
        if length > DEVICES_MOST {
            return Err(FormatError::Damaged("its device state is too large"));
        }
        let mut bytes = vec![0; length as usize];
        file.read_exact_at(&mut bytes, self.devices_at)?;
        let ends = |at: &usize| match &bytes[*at..] {
            [END, DESCRIPTION, a, b, c, d, rest @ ..] => {
                u32::from_be_bytes([*a, *b, *c, *d]) as usize == rest.len()
            }
            _ => false,
        };
        let end = (0..bytes.len()).rev().find(ends);
        bytes.truncate(end.ok_or(FormatError::Damaged("its device state does not end"))?);
        Ok(bytes)
    }

    /// Fills the page bitmaps from where the file has data.
    ///
    /// # Errors
    /// When the file cannot be read or written.
    pub fn fill_bitmaps(&self, file: &File) -> Result<(), FormatError> {
        for block in &self.blocks {
            let pages = (block.length / PAGE) as usize;
            let mut bitmap = vec![0_u8; pages.div_ceil(64) * 8];
            let end = block.pages_at + block.length;
            let mut at = block.pages_at;
            while let Some((from, to)) = next_data(file, at, end)? {
                let first = (from - block.pages_at) / PAGE;
                let last = (to - block.pages_at).div_ceil(PAGE);
                for page in first..last {
                    bitmap[page as usize / 8] |= 1 << (page % 8);
                }
                at = to;
            }
            steps::around("poll file fill bitmap", || file.write_all_at(&bitmap, block.bitmap_at))?;
        }
        Ok(())
    }
}

/// The next run of data in `[at, end)`.
fn next_data(file: &File, at: u64, end: u64) -> io::Result<Option<(u64, u64)>> {
    if at >= end {
        return Ok(None);
    }
    let from = match seek(file, SeekFrom::Data(at)) {
        Ok(from) if from < end => from,
        Ok(_) | Err(rustix::io::Errno::NXIO) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let to = seek(file, SeekFrom::Hole(from))?.min(end);
    Ok(Some((from, to)))
}

struct Cursor<'a> {
    file: &'a File,
    at: u64,
    length: u64,
}

impl Cursor<'_> {
    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], FormatError> {
        let mut bytes = [0; N];
        if self.at + N as u64 > self.length {
            return Err(FormatError::Damaged("it ends too early"));
        }
        self.file.read_exact_at(&mut bytes, self.at)?;
        self.at += N as u64;
        Ok(bytes)
    }

    fn u8(&mut self) -> Result<u8, FormatError> {
        self.bytes::<1>().map(|[byte]| byte)
    }

    fn u16(&mut self) -> Result<u16, FormatError> {
        self.bytes().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Result<u32, FormatError> {
        self.bytes().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Result<u64, FormatError> {
        self.bytes().map(u64::from_be_bytes)
    }

    fn skip(&mut self, bytes: u64) -> Result<(), FormatError> {
        self.at = self.at.saturating_add(bytes);
        if self.at > self.length {
            return Err(FormatError::Damaged("it ends too early"));
        }
        Ok(())
    }

    fn expect<T: Field>(&mut self, wanted: T, otherwise: &'static str) -> Result<(), FormatError> {
        if T::read(self)? == wanted { Ok(()) } else { Err(FormatError::Damaged(otherwise)) }
    }

    fn text(&mut self, length: u64) -> Result<String, FormatError> {
        let start = self.at;
        self.skip(length)?;
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
        self.file.read_exact_at(&mut bytes, start)?;
        String::from_utf8(bytes).map_err(|_| FormatError::Damaged("a name in it is no text"))
    }

    fn name(&mut self) -> Result<String, FormatError> {
        let length = self.u8()?;
        self.text(length.into())
    }

    /// The configuration section: the machine's name, then subsections of which only the list of
    /// capabilities is known to occur.
    fn configuration(&mut self) -> Result<String, FormatError> {
        self.expect(CONFIGURATION, "it has no configuration")?;
        let length = self.u32()?;
        if length > 255 {
            return Err(FormatError::Damaged("its machine's name is too long"));
        }
        let machine = self.text(length.into())?;
        while self.peek()? == SUBSECTION {
            self.skip(1)?;
            let name = self.name()?;
            self.skip(4)?;
            match name.as_str() {
                "configuration/capabilities" => {
                    for _ in 0..self.u32()? {
                        self.name()?;
                    }
                }
                "configuration/target-page-bits" => self.skip(4)?,
                _ => {
                    return Err(FormatError::Damaged("its configuration holds something unknown"));
                }
            }
        }
        Ok(machine)
    }

    fn peek(&mut self) -> Result<u8, FormatError> {
        let byte = self.u8()?;
        self.at -= 1;
        Ok(byte)
    }

    fn blocks(&mut self, total: u64) -> Result<Vec<Block>, FormatError> {
        let mut blocks = Vec::new();
        let mut left = total;
        while left > 0 {
            if blocks.len() == BLOCKS_MOST {
                return Err(FormatError::Damaged("it has too many RAM blocks"));
            }
            let name = self.name()?;
            let length = self.u64()?;
            self.expect(1_u32, "a RAM block has an unknown version")?;
            self.expect(PAGE, "a RAM block has another page size")?;
            let bitmap_at = self.u64()?;
            let pages_at = self.u64()?;
            let bitmap = (length / PAGE).div_ceil(64) * 8;
            let sound = length > 0
                && length <= left
                && length.is_multiple_of(PAGE)
                && bitmap_at >= self.at
                && bitmap_at.checked_add(bitmap).is_some_and(|end| end <= pages_at);
            if !sound {
                return Err(FormatError::Damaged("a RAM block lies where it cannot"));
            }
            left -= length;
            self.at = pages_at;
            self.skip(length)?;
            blocks.push(Block { name, length, bitmap_at, pages_at });
        }
        Ok(blocks)
    }

    /// A command to whoever loads it, such as that the machine is held from here on.
    fn command(&mut self) -> Result<(), FormatError> {
        self.skip(2)?;
        let length = self.u16()?;
        self.skip(length.into())
    }

    fn round_end(&mut self, section: u32) -> Result<(), FormatError> {
        self.expect(END_OF_ROUND, "its RAM section does not end")?;
        self.expect(FOOTER, "a section has no end")?;
        self.expect(section, "a section ends as another")
    }
}

/// A number that can be read.
trait Field: PartialEq + Sized {
    fn read(cursor: &mut Cursor<'_>) -> Result<Self, FormatError>;
}

impl Field for u8 {
    fn read(cursor: &mut Cursor<'_>) -> Result<Self, FormatError> {
        cursor.u8()
    }
}

impl Field for u32 {
    fn read(cursor: &mut Cursor<'_>) -> Result<Self, FormatError> {
        cursor.u32()
    }
}

impl Field for u64 {
    fn read(cursor: &mut Cursor<'_>) -> Result<Self, FormatError> {
        cursor.u64()
    }
}
