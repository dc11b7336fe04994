//! `offshoot image` and `offshoot clone` as a person uses them.
//!
//! Needs root.

#![forbid(unsafe_code)]

mod place;

use place::Place;
use serde_json::Value;
use std::fs;
use std::process::Command;

/// What a command says; it must succeed.
fn say(place: &Place, words: &[&str]) -> String {
    let output = place.command(words).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// What a command complains of; it must fail.
fn complain(place: &Place, words: &[&str]) -> String {
    let output = place.command(words).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{words:?}: {}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8(output.stderr).unwrap()
}

/// A store with the image `base`.
fn place(name: &str) -> Option<Place> {
    let mut place = Place::new(name, &["/bin/true"])?;
    let tree = place.dir.join("tree");
    fs::create_dir_all(tree.join("etc")).unwrap();
    fs::write(tree.join("etc/issue"), "from the image\n").unwrap();
    place.store = Some(place.dir.join("store"));
    say(&place, &["image", "import", "-q", "tree", "base"]);
    Some(place)
}

#[test]
fn an_image_goes_out_and_comes_back_the_same() {
    let Some(place) = place("images") else { return };
    let shown: Value = serde_json::from_str(&say(&place, &["image", "show", "base"])).unwrap();
    assert_eq!((shown["names"][0].as_str(), shown["size"].as_u64()), (Some("base:latest"), Some(15)));
    assert_eq!(shown["config"]["config"]["Cmd"][0], "/bin/sh");
    for format in ["tar", "tar.gz", "oci"] {
        say(&place, &["image", "export", "-f", format, "base", "out"]);
        let again = say(&place, &["image", "import", "out", format]);
        assert!(again.contains(&format!("{format}:latest")), "{again}");
        let layers = |name: &str| -> Value {
            serde_json::from_str::<Value>(&say(&place, &["image", "show", name])).unwrap()["layers"].clone()
        };
        assert_eq!(layers(format), layers("base"), "{format}");
    }
    say(&place, &["image", "tag", "base", "mine:1"]);
    let table = say(&place, &["image", "list"]);
    assert!(table.starts_with("NAME ") && table.lines().any(|line| line.starts_with("mine ")), "{table}");
    let list: Vec<Value> = serde_json::from_str(&say(&place, &["image", "list", "-f", "json"])).unwrap();
    assert!(list.iter().any(|image| image["names"].to_string().contains("mine:1")));
    assert!(say(&place, &["image", "df"]).lines().count() > 1);
    assert!(say(&place, &["image", "check"]).contains("0 clones, 0 remains"));
    for name in ["mine:1", "tar", "tar.gz", "oci", "base"] {
        say(&place, &["image", "rm", name]);
    }
    assert_eq!(say(&place, &["image", "list", "-q"]), "");
    assert_eq!(fs::read_dir(place.dir.join("store/layers")).unwrap().count(), 0);
    let errors = complain(&place, &["image", "show", "base"]);
    assert!(errors.contains("there is no image") && errors.contains("hint: offshoot image list"), "{errors}");
}

#[test]
fn clones_are_made_looked_at_and_removed() {
    let Some(place) = place("clones") else { return };
    say(&place, &["clone", "create", "base", "web", "db"]);
    fs::create_dir(place.dir.join("at")).unwrap();
    // In a mount namespace of its own.
    let script = r#""$0" clone mount web at && echo changed > at/etc/issue && umount at && "$0" clone diff web"#;
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script]).arg(place::program()).current_dir(&place.dir);
    let output = command.env("OFFSHOOT_STORE", place.store.as_ref().unwrap()).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "C /etc/issue\n", "{output:?}");
    say(&place, &["clone", "snapshot", "web", "s1"]);
    let list: Vec<Value> = serde_json::from_str(&say(&place, &["clone", "list", "-f", "json"])).unwrap();
    assert_eq!((list.len(), list[1]["snapshots"][0].as_str(), list[0]["keep"].as_bool()), (2, Some("s1"), Some(true)));
    say(&place, &["clone", "commit", "web", "template"]);
    say(&place, &["clone", "create", "template", "third"]);
    let errors = complain(&place, &["clone", "create", "base", "web"]);
    assert!(errors.contains("exists already"), "{errors}");
    let errors = complain(&place, &["image", "rm", "base"]);
    assert!(errors.contains("and 1 more is made of it") && errors.contains("hint: delete its clones"), "{errors}");
    say(&place, &["clone", "rollback", "web", "s1"]);
    say(&place, &["clone", "forget", "web", "s1"]);
    say(&place, &["clone", "rm", "web", "db", "third"]);
    assert_eq!(say(&place, &["clone", "list", "-f", "json"]), "[]\n");
    let pruned = say(&place, &["image", "prune", "--all"]);
    assert!(
        pruned.contains("removed image base:latest") && pruned.contains("removed image template:latest"),
        "{pruned}"
    );
}

#[test]
fn a_bar_shows_how_far_an_import_is_only_where_one_looks_on() {
    let Some(place) = place("bar") else { return };
    fs::write(place.dir.join("tree/big"), vec![b'x'; 8 << 20]).unwrap();
    assert!(
        Command::new("tar")
            .current_dir(&place.dir)
            .args(["-C", "tree", "-cf", "big.tar", "."])
            .status()
            .unwrap()
            .success()
    );
    // script(1) gives it a terminal.
    let import = format!("{} image import big.tar big", place::program().display());
    let mut command = Command::new("script");
    command.args(["-qec", &import, "/dev/null"]).current_dir(&place.dir);
    match command.env("OFFSHOOT_STORE", place.store.as_ref().unwrap()).stdin(std::process::Stdio::null()).output() {
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stdout);
            assert!(said.contains("importing [###") && said.contains("100 %") && said.contains("8.0 MiB"), "{said}");
            assert!(said.trim_end().ends_with("big:latest"), "{said}");
        }
        Err(_) => println!("skipped: no script(1)"),
    }
    let output = place.command(&["image", "import", "big.tar", "big"]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}
