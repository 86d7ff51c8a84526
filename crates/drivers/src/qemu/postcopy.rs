//! QEMU's postcopy protocol, as the sending side speaks it: the machine runs at once, and its
//! memory comes when it is touched, or behind. All integers are big-endian.
//!
//! Source: QEMU's `docs/devel/migration/postcopy.rst`, `migration/savevm.c` and `migration/ram.c`,
//! and what 10.0.2 takes.

use super::mapped_ram::Layout;
use super::stream::{
    COMMAND, CONFIGURATION, END, END_OF_ROUND, FOOTER, MAGIC, MEM_SIZE, PAGE, SECTION_END,
    SECTION_PART, SECTION_START, VERSION,
};
use std::io;

const OPEN_RETURN_PATH: u16 = 1;
const ADVISE: u16 = 3;
const LISTEN: u16 = 4;
const RUN: u16 = 5;
const DISCARD: u16 = 6;
const PACKAGED: u16 = 7;
const RESUME: u16 = 9;
const RECEIVED: u16 = 10;

/// What ends a bitmap of received pages.
pub(super) const BITMAP_END: u64 = 0x0123_4567_89ab_cdef;

/// The version of the RAM section.
const RAM_VERSION: u32 = 4;
const ZERO_PAGE: u64 = 0x02;
const WHOLE_PAGE: u64 = 0x08;
/// The page is of the same block as the one before.
const CONTINUE: u64 = 0x20;

/// Longest message that QEMU sends back.
const MESSAGE_MOST: usize = 512;

/// What begins the stream: that memory will come later, and the sizes of RAM. Pages may follow that
/// are to be there from the beginning.
pub(super) fn opening(layout: &Layout) -> Vec<u8> {
    let mut out = Out(Vec::new());
    out.u32(MAGIC).u32(VERSION);
    out.u8(CONFIGURATION).u32(layout.machine.len() as u32).bytes(layout.machine.as_bytes());
    out.command(OPEN_RETURN_PATH, &[]);
    let sizes = [PAGE, PAGE].map(u64::to_be_bytes).concat();
    out.command(ADVISE, &sizes);
    out.u8(SECTION_START).u32(layout.section).name("ram").u32(0).u32(RAM_VERSION);
    let total: u64 = layout.blocks.iter().map(|block| block.length).sum();
    out.u64(total | MEM_SIZE);
    for block in &layout.blocks {
        out.name(&block.name).u64(block.length);
    }
    out.round_end(layout.section);
    out.command(DISCARD, &some_discard(layout));
    out.0
}

/// The state of the devices, and the order to run.
pub(super) fn order_to_run(devices: &[u8]) -> Vec<u8> {
    let mut out = Out(Vec::new());
    let mut package = Out(Vec::new());
    package.command(LISTEN, &[]).bytes(devices).command(RUN, &[]);
    out.command(PACKAGED, &(package.0.len() as u32).to_be_bytes()).bytes(&package.0);
    out.0
}

/// The first page of RAM, to be dropped. A QEMU that was told to drop nothing takes pages as if it
/// did not run yet, and hangs; and it is from then on that it has no huge pages, of which one that
/// was sent in part would count as there.
fn some_discard(layout: &Layout) -> Vec<u8> {
    let name = layout.blocks.first().map_or("", |block| block.name.as_str());
    let mut out = Out(Vec::new());
    out.u8(0).name(name).u8(0).u64(0).u64(PAGE);
    out.0
}

/// What begins a further stream to a machine whose first one broke: which pages it has of each
/// block.
pub(super) fn question(layout: &Layout) -> Vec<u8> {
    let mut out = Out(Vec::new());
    for block in &layout.blocks {
        let mut name = Out(Vec::new());
        name.name(&block.name);
        out.command(RECEIVED, &name.0);
    }
    out.0
}

/// The order to go on.
pub(super) fn order_to_resume() -> Vec<u8> {
    let mut out = Out(Vec::new());
    out.command(RESUME, &[]);
    out.0
}

/// What ends the stream once all pages were sent.
pub(super) fn closing(section: u32) -> Vec<u8> {
    let mut out = Out(Vec::new());
    out.u8(SECTION_END).u32(section).round_end(section).u8(END);
    out.0
}

/// Pages on their way.
pub(super) struct Part {
    out: Out,
    section: u32,
    block: Option<usize>,
}

impl Part {
    pub(super) fn new(section: u32) -> Self {
        let mut out = Out(Vec::new());
        out.u8(SECTION_PART).u32(section);
        Self { out, section, block: None }
    }

    /// Adds a page of a block; one of zeros without content.
    pub(super) fn page(&mut self, block: usize, name: &str, at: u64, content: Option<&[u8]>) {
        let kind = if content.is_some() { WHOLE_PAGE } else { ZERO_PAGE };
        if self.block.replace(block) == Some(block) {
            self.out.u64(at | kind | CONTINUE);
        } else {
            self.out.u64(at | kind).name(name);
        }
        match content {
            Some(content) => self.out.bytes(content),
            None => self.out.u8(0),
        };
    }

    pub(super) fn is_empty(&self) -> bool {
        self.block.is_none()
    }

    pub(super) fn finish(mut self) -> Vec<u8> {
        self.out.round_end(self.section);
        self.out.0
    }
}

struct Out(Vec<u8>);

impl Out {
    fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    fn u8(&mut self, value: u8) -> &mut Self {
        self.bytes(&[value])
    }

    fn u16(&mut self, value: u16) -> &mut Self {
        self.bytes(&value.to_be_bytes())
    }

    fn u32(&mut self, value: u32) -> &mut Self {
        self.bytes(&value.to_be_bytes())
    }

    fn u64(&mut self, value: u64) -> &mut Self {
        self.bytes(&value.to_be_bytes())
    }

    fn name(&mut self, name: &str) -> &mut Self {
        self.u8(name.len() as u8).bytes(name.as_bytes())
    }

    fn command(&mut self, command: u16, data: &[u8]) -> &mut Self {
        self.u8(COMMAND).u16(command).u16(data.len() as u16).bytes(data)
    }

    fn round_end(&mut self, section: u32) -> &mut Self {
        self.u64(END_OF_ROUND).u8(FOOTER).u32(section)
    }
}

/// What the receiving side says.
#[derive(PartialEq, Eq, Debug)]
pub enum Said {
    /// It is over; zero if all is well.
    Over(u32),
    /// These pages are waited for, of the same block as before if none is named.
    Wanted {
        /// The block.
        block: Option<String>,
        /// Where in it, in bytes.
        start: u64,
        /// How much, in bytes.
        length: u64,
    },
    /// Which pages of a block are there: a bitmap follows, its size before it, and
    /// `BITMAP_END` after it.
    Received(String),
    /// It goes on.
    Resumed,
    /// Something else, which needs no answer.
    Else,
}

/// The first thing in what was heard, and how many bytes it is long, once all of it is there.
///
/// # Errors
/// When it is nothing that can be said.
pub fn understand(heard: &[u8]) -> io::Result<Option<(Said, usize)>> {
    let Some((&[kind_high, kind_low, high, low], rest)) = heard.split_first_chunk::<4>() else {
        return Ok(None);
    };
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length > MESSAGE_MOST {
        return Err(io::Error::other("a message on the return path is too long"));
    }
    let Some(data) = rest.get(..length) else {
        return Ok(None);
    };
    let said = match (u16::from_be_bytes([kind_high, kind_low]), data) {
        (1, [a, b, c, d]) => Said::Over(u32::from_be_bytes([*a, *b, *c, *d])),
        (5, [length, name @ ..]) if usize::from(*length) == name.len() => {
            Said::Received(String::from_utf8_lossy(name).into_owned())
        }
        (6, _) => Said::Resumed,
        (3 | 4, data) => wanted(data).ok_or_else(|| io::Error::other("a damaged request"))?,
        _ => Said::Else,
    };
    Ok(Some((said, 4 + length)))
}

fn wanted(data: &[u8]) -> Option<Said> {
    let (start, rest) = data.split_first_chunk::<8>()?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let block = match rest.split_first() {
        Some((&length, name)) if usize::from(length) == name.len() => {
            Some(String::from_utf8(name.to_vec()).ok()?)
        }
        Some(_) => return None,
        None => None,
    };
    let (start, length) = (u64::from_be_bytes(*start), u32::from_be_bytes(*length).into());
    Some(Said::Wanted { block, start, length })
}

#[cfg(test)]
mod tests {
    use super::{Part, Said, understand};

    #[test]
    fn requests_name_a_block_once() {
        let mut said = vec![0, 3, 0, 19];
        said.extend(0x2000_u64.to_be_bytes());
        said.extend(0x1000_u32.to_be_bytes());
        said.extend(b"\x06pc.ram");
        said.extend([0, 4, 0, 12]);
        said.extend(0x5000_u64.to_be_bytes());
        said.extend(0x1000_u32.to_be_bytes());
        said.extend([0, 1, 0, 4, 0, 0, 0, 0]);
        let wanted = |block: Option<&str>, start| {
            let block = block.map(str::to_owned);
            Said::Wanted { block, start, length: 0x1000 }
        };
        let expected = [wanted(Some("pc.ram"), 0x2000), wanted(None, 0x5000), Said::Over(0)];
        let mut at = 0;
        for said_next in expected {
            let (understood, length) = understand(&said[at..]).unwrap().unwrap();
            assert_eq!(understood, said_next);
            assert_eq!(understand(&said[at..at + length - 1]).unwrap(), None, "half of it");
            at += length;
        }
        assert_eq!(understand(&said[at..]).unwrap(), None);
    }

    #[test]
    fn a_damaged_request_is_an_error() {
        for said in [&[0, 3, 0, 3, 1, 2, 3][..], &[0, 3, 255, 255]] {
            assert!(understand(said).is_err());
        }
    }

    #[test]
    fn pages_of_a_block_name_it_once() {
        let mut part = Part::new(2);
        part.page(0, "a", 0x1000, None);
        part.page(0, "a", 0x2000, Some(&[7, 7]));
        let expected = [
            &[2, 0, 0, 0, 2][..],
            &[0, 0, 0, 0, 0, 0, 0x10, 0x02, 1, b'a', 0],
            &[0, 0, 0, 0, 0, 0, 0x20, 0x28, 7, 7],
            &[0, 0, 0, 0, 0, 0, 0, 0x10, 0x7e, 0, 0, 0, 2],
        ];
        assert_eq!(part.finish(), expected.concat());
    }
}
