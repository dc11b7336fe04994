//! Work in many processes. The harness of cargo runs tests in threads, which may not fork: so this is a program.

#![forbid(unsafe_code)]

use offshoot_machine::{Error, pool};
use std::cell::Cell;
use std::collections::BTreeMap;

fn run(items: &[String], width: usize) -> BTreeMap<usize, Result<(), String>> {
    let mut all = BTreeMap::new();
    let count = Cell::new(0);
    let work = |item: &str| {
        count.set(count.get() + 1);
        match item {
            "bad" => Err(Error::request("it is bad").hint("be good")),
            "dead" => std::process::abort(),
            _ => Ok(()),
        }
    };
    let mut report = |at, result: offshoot_machine::Result<()>| {
        let hint = |error: Error| format!("{error} {}", error.advice().unwrap_or_default());
        assert!(all.insert(at, result.map_err(hint)).is_none(), "reported twice");
    };
    pool::each(items, width, &mut report, &work).unwrap();
    // Processes of their own: nothing that work does shows here.
    assert_eq!(count.get(), if width == 1 { items.len() } else { 0 });
    all
}

fn main() {
    let mut items: Vec<String> = (0..40_000).map(|number| number.to_string()).collect();
    items[7] = "bad".into();
    for width in [1, 3] {
        let all = run(&items, width);
        assert_eq!(
            (all.len(), &all[&7], all.values().filter(|one| one.is_err()).count()),
            (items.len(), &Err("it is bad be good".into()), 1)
        );
    }
    let all = run(&["a", "dead", "b", "c"].map(String::from), 2);
    assert_eq!(all.len(), 4);
    assert!(all[&1].as_ref().unwrap_err().contains("signal: aborted") && all[&0].is_ok(), "{all:?}");
    println!("test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out");
}
