//! Keywords, found by what tables know of every three letters in their rows.

use crate::sql::{Query, sql};
use crate::{StoreError, Unit};
use std::ops::Range;

/// So many rows that may have a keyword are looked at one by one; of a keyword that more have, a
/// page is sooner found by looking at the rows in the order of the page.
const FEW: usize = 8192;
/// The shortest keyword that the index of words knows.
const LEAST: usize = 3;
/// So many rows may be walked through to find those that have a part of a keyword: each three of
/// letters that all rows have takes as long as all the others together.
const WALKED: usize = 40_000;
/// Of how many of a keyword's threes it is looked how rare they are.
const LOOKED: usize = 32;
/// After how many rows it is looked how early they come.
const FIRST: usize = 64;

/// A table with an index of words.
#[derive(Clone, Copy)]
pub(crate) enum Worded {
    Snapshot,
    Vm,
}

impl Worded {
    fn matching(self) -> &'static str {
        match self {
            Self::Snapshot => {
                "SELECT rowid FROM snapshot_words WHERE snapshot_words MATCH $1 LIMIT $2 OFFSET $3"
            }
            Self::Vm => "SELECT rowid FROM vm_words WHERE vm_words MATCH $1 LIMIT $2 OFFSET $3",
        }
    }

    fn last(self) -> &'static str {
        match self {
            Self::Snapshot => "SELECT MAX(seq) AS last FROM snapshot",
            Self::Vm => "SELECT MAX(seq) AS last FROM vm",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Snapshot => "snapshot",
            Self::Vm => "vm",
        }
    }

    fn columns(self) -> &'static [&'static str] {
        match self {
            Self::Snapshot => &["snapshot.name", "snapshot.description"],
            Self::Vm => &["vm.name"],
        }
    }

    fn row(self) -> &'static str {
        match self {
            Self::Snapshot => "snapshot.seq",
            Self::Vm => "vm.seq",
        }
    }
}

/// A keyword that rows are to have.
pub(crate) struct Keyword<'a> {
    table: Worded,
    keyword: &'a str,
    /// What the index of words is asked for: a part of it, or all of it. Nothing where certainly
    /// many rows have that.
    words: Option<String>,
    /// Whether so few rows have that, by a guess, that each may be looked at.
    few: bool,
}

impl Keyword<'_> {
    /// Whether so few rows have what the index of words is asked for that each may be looked at.
    pub(crate) fn is_of_few(&self) -> bool {
        self.few
    }

    /// What the index of words is asked for, unless certainly many rows have that.
    pub(crate) fn words(&self) -> Option<&str> {
        self.words.as_deref()
    }

    /// Goes on with the condition that a row has it.
    pub(crate) fn push(&self, query: &mut Query) {
        query.push(" AND (FALSE");
        for column in self.table.columns() {
            query.push(format!(" OR {column} LIKE ")).push_bind(pattern(self.keyword));
            query.push(" ESCAPE '\\'");
        }
        query.push(")");
    }
}

/// Goes on with the condition that a row is one of these. They are one value, so that the text is
/// planned once.
pub(crate) fn push_rows(query: &mut Query, table: Worded, rows: &[i64]) {
    query.push(format!(" AND {} IN (SELECT value FROM json_each(", table.row()));
    query.push_bind(numbers(rows)).push("))");
}

/// Goes on with where rows come from: all of a table, or these of it, one after the other. To look
/// whether a row is among them, SQLite would put them in a table of their own first, with memory
/// for its pages.
pub(crate) fn push_from(query: &mut Query, table: Worded, rows: Option<&[i64]>) {
    let Some(rows) = rows else {
        query.push(format!(" FROM {}", table.name()));
        return;
    };
    query.push(" FROM json_each(").push_bind(numbers(rows)).push(") AS few CROSS JOIN ");
    query.push(format!("{} ON {} = few.value", table.name(), table.row()));
}

fn numbers(rows: &[i64]) -> String {
    serde_json::to_string(rows).unwrap_or_default()
}

impl Unit {
    /// Looks where a keyword may be.
    pub(crate) fn keyword<'a>(
        &mut self,
        table: Worded,
        keyword: &'a str,
    ) -> Result<Keyword<'a>, StoreError> {
        let letters: Vec<char> = keyword.chars().collect();
        if letters.len() < LEAST {
            return Ok(Keyword { table, keyword, words: None, few: false });
        }
        let last = self.last_row(table)?;
        let threes: Vec<String> =
            letters.windows(LEAST).take(LOOKED).map(|three| three.iter().collect()).collect();
        let (part, most) =
            rarest_part(threes.len(), |at| self.estimate(table, &quoted(&threes[at]), last))?;
        let part: String = letters[part].iter().collect();
        if most <= FEW {
            return Ok(Keyword { table, keyword, words: Some(quoted(&part)), few: true });
        }
        for words in [quoted(&part), quoted(keyword)] {
            // However rough the guess.
            let rows = self.estimate(table, &words, last)?;
            if rows <= 4 * FEW {
                return Ok(Keyword { table, keyword, words: Some(words), few: rows <= FEW });
            }
        }
        Ok(Keyword { table, keyword, words: None, few: false })
    }

    /// The rows that may have a keyword, where these are few.
    pub(crate) fn few_rows(
        &mut self,
        keyword: &Keyword<'_>,
    ) -> Result<Option<Vec<i64>>, StoreError> {
        let Some(words) = keyword.words() else { return Ok(None) };
        for words in [words, &quoted(keyword.keyword)] {
            let rows = self.matching(keyword.table, words, FEW, 0)?;
            if rows.len() < FEW {
                return Ok(Some(rows));
            }
        }
        Ok(None)
    }

    /// How many rows may match, guessed by how early the first ones come.
    fn estimate(&mut self, table: Worded, words: &str, last: usize) -> Result<usize, StoreError> {
        let first = self.matching(table, words, 1, FIRST)?;
        let row = first.first().map(|&row| usize::try_from(row).unwrap_or(1).max(1));
        Ok(row.map_or(0, |row| FIRST * last / row))
    }

    /// The number of the last row.
    fn last_row(&mut self, table: Worded) -> Result<usize, StoreError> {
        let last: Option<i64> = self.one(sql(table.last()), |row| row.get("last"))?.flatten();
        Ok(last.and_then(|last| usize::try_from(last).ok()).unwrap_or(0))
    }

    fn matching(
        &mut self,
        table: Worded,
        words: &str,
        most: usize,
        from: usize,
    ) -> Result<Vec<i64>, StoreError> {
        let query = sql(table.matching()).bind(words).bind(most as i64).bind(from as i64);
        self.all(query, |row| row.get("rowid"))
    }
}

/// Which letters of a keyword its rows are looked for by: a three that few rows have, or the one
/// that fewest have, and those beside it as long as few rows are walked through. `rows` tells how
/// many each of the `threes` has; those that share no letter are looked at first. Tells as well how
/// many rows have the rarest three of them: no more have all.
fn rarest_part(
    threes: usize,
    mut rows: impl FnMut(usize) -> Result<usize, StoreError>,
) -> Result<(Range<usize>, usize), StoreError> {
    let mut known = vec![None; threes];
    let mut rows = |at: usize| match known[at] {
        Some(rows) => Ok::<usize, StoreError>(rows),
        None => Ok(*known[at].insert(rows(at)?)),
    };
    // The last as well: what tells names apart is often a number at their end.
    let mut least = (rows(threes - 1)?, threes - 1);
    for at in (0..threes).step_by(LEAST).chain(0..threes) {
        if least.0 > FEW {
            least = least.min((rows(at)?, at));
        }
    }
    let (mut most, at) = least;
    let (mut walked, mut from, mut to) = (most, at, at);
    loop {
        let mut next = None;
        if let Some(before) = from.checked_sub(1) {
            next = Some((rows(before)?, before, to));
        }
        if to + 1 < threes {
            let after = (rows(to + 1)?, from, to + 1);
            next = Some(next.map_or(after, |before| before.min(after)));
        }
        let Some(next) = next else { break };
        walked += next.0;
        if walked > WALKED {
            break;
        }
        most = most.min(next.0);
        (from, to) = (next.1, next.2);
    }
    Ok((from..to + LEAST, most))
}

/// A text as the index of words is asked for it.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('"', "\"\""))
}

/// What LIKE finds a keyword by, wherever it is.
fn pattern(keyword: &str) -> String {
    let mut text = String::from("%");
    for c in keyword.chars() {
        if matches!(c, '\\' | '%' | '_') {
            text.push('\\');
        }
        text.push(c);
    }
    text.push('%');
    text
}

#[cfg(test)]
mod tests {
    use super::{Range, rarest_part};

    /// The part of a keyword whose threes so many rows have, the most that have it, and how often
    /// it was asked for that.
    fn part(rows: &[usize]) -> (Range<usize>, usize, usize) {
        let mut asked = 0;
        let part = rarest_part(rows.len(), |at| {
            asked += 1;
            Ok(rows[at])
        });
        let (part, most) = part.unwrap();
        (part, most, asked)
    }

    #[test]
    fn a_keyword_is_looked_for_by_the_letters_that_few_rows_have() {
        assert_eq!(part(&[9]), (0..3, 9, 1));
        assert_eq!(part(&[1_000_000, 3000, 20_000, 1_000_000]).0, 1..5);
        assert_eq!(part(&[100, 100, 99]), (0..5, 99, 3));
        assert_eq!(part(&[1_000_000, 1_000_000]).0, 0..3);
        let mut long = [1_000_000; 24];
        (long[22], long[23]) = (12_000, 3000);
        assert_eq!(part(&long), (22..26, 3000, 3), "no three is asked for that need not be");
    }
}
