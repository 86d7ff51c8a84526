//! Worlds are what their seeds say, and nothing else.

use tintype_sim::run;

/// R11, E29: whatever dies and whenever, what was under way ends by itself and nothing is lost; and
/// a seed is the whole story, so that what goes wrong can be seen again.
#[test]
fn a_seed_is_the_whole_story() {
    for seed in 0..40 {
        let told = run(seed, true).unwrap_or_else(|(flaw, _)| panic!("{flaw}"));
        let again = run(seed, true).unwrap_or_else(|(flaw, _)| panic!("{flaw}"));
        assert_eq!(told, again, "seed {seed}");
        assert!(told.lines.len() as u64 >= told.events);
    }
}

/// Worlds are not idle: people are answered, things fail and processes die.
#[test]
fn worlds_are_eventful() {
    let mut told = String::new();
    for seed in 0..40 {
        let story = run(seed, true).unwrap_or_else(|(flaw, _)| panic!("{flaw}"));
        told.push_str(&story.lines.join("\n"));
    }
    for word in [
        "snapshot vm",
        "revert to",
        "delete Of",
        "clone vm",
        ": accepted",
        ": vm-busy",
        "agent: take",
        "agent: reclaim",
        ": died",
        "failed, the storage",
        "loses its power",
        "the clock jumps",
        "everything is killed",
    ] {
        assert!(told.contains(word), "{word:?} does not happen");
    }
}
