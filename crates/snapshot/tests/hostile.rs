//! Archives that mean harm, or are damaged: refused with the entry's name, and nothing of them stays.

mod common;

use std::io::Write;

use common::{Scratch, is_root, scratch};
use offshoot_snapshot::{Digest, Image, ImportOptions, Kind, Limits, Name, Result, Source, Store};

/// A tar entry, made by hand so that nothing tidies it up.
struct Entry<'a> {
    name: &'a str,
    kind: u8,
    link: &'a str,
    data: &'a [u8],
    device: (u32, u32),
}

fn entry<'a>(name: &'a str, kind: u8) -> Entry<'a> {
    Entry { name, kind, link: "", data: b"", device: (1, 3) }
}

fn file<'a>(name: &'a str, data: &'a [u8]) -> Entry<'a> {
    Entry { data, ..entry(name, b'0') }
}

fn link<'a>(name: &'a str, kind: u8, link: &'a str) -> Entry<'a> {
    Entry { link, ..entry(name, kind) }
}

fn header(entry: &Entry, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.as_mut_bytes()[..entry.name.len()].copy_from_slice(entry.name.as_bytes());
    header.as_mut_bytes()[157..157 + entry.link.len()].copy_from_slice(entry.link.as_bytes());
    header.as_mut_bytes()[156] = entry.kind;
    header.set_mode(0o755);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(1_700_000_000);
    header.set_size(size);
    header.set_device_major(entry.device.0).unwrap();
    header.set_device_minor(entry.device.1).unwrap();
    header.set_cksum();
    header
}

fn archive(entries: &[Entry]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for entry in entries {
        bytes.extend_from_slice(header(entry, entry.data.len() as u64).as_bytes());
        bytes.extend_from_slice(entry.data);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
    }
    bytes.resize(bytes.len() + 1024, 0);
    bytes
}

fn pax(name: &str, records: &[(&str, &[u8])]) -> Vec<u8> {
    let mut data = Vec::new();
    for (key, value) in records {
        let rest = key.len() + value.len() + 3;
        let length = (1..).map(|digits| rest + digits).find(|all| all.to_string().len() + rest == *all).unwrap();
        write!(data, "{length} {key}=").unwrap();
        data.extend_from_slice(value);
        data.push(b'\n');
    }
    let mut bytes = archive(&[Entry { data: &data, ..entry("x", b'x') }]);
    bytes.truncate(bytes.len() - 1024);
    bytes.extend(archive(&[file(name, b"")]));
    bytes
}

fn import(store: &Store, bytes: &[u8], options: ImportOptions) -> Result<Image> {
    store.import(Source::Stream(Box::new(bytes), "hostile.tar".into()), &options, &mut |_| ())
}

fn empty_store(name: &str) -> (Scratch, Store) {
    let scratch = scratch(name);
    let store = Store::open(scratch.0.join("store")).unwrap();
    (scratch, store)
}

/// Nothing but the empty directories of the store.
fn is_empty(store: &Store) -> bool {
    let entries = |name: &str| std::fs::read_dir(store.path().join(name)).unwrap().count();
    ["layers", "images", "templates", "clones", "tmp"].iter().all(|name| entries(name) == 0)
}

fn refused(store: &Store, what: &str, bytes: &[u8], words: &[&str]) {
    let error = import(store, bytes, ImportOptions::default()).expect_err(what);
    let text = error.to_string();
    assert_eq!(error.kind(), Kind::Refused, "{what}: {text}");
    for word in words {
        assert!(text.contains(word), "{what}: {text} lacks {word}");
    }
    assert!(is_empty(store), "{what} left something");
}

#[test]
fn names_that_lead_out_are_refused_by_name() {
    if !is_root() {
        return;
    }
    let (scratch, store) = empty_store("names");
    let outside = scratch.0.join("outside");
    std::fs::create_dir(&outside).unwrap();
    let target = outside.display().to_string();
    let cases: Vec<(&str, Vec<Entry>, &str)> = vec![
        ("dots", vec![file("../escape", b"x")], "../escape"),
        ("dots inside", vec![entry("a/", b'5'), file("a/../../escape", b"x")], "a/../../escape"),
        ("absolute", vec![file("/etc/escape", b"x")], "/etc/escape"),
        ("absolute directory", vec![entry("/escape/", b'5')], "/escape/"),
        ("through a symlink", vec![link("a", b'2', &target), file("a/escape", b"x")], "a/escape"),
        ("a directory through a symlink", vec![link("a", b'2', &target), entry("a/d/", b'5')], "a/d/"),
        ("through a relative symlink", vec![link("a", b'2', "../../.."), file("a/tmp/escape", b"x")], "a/tmp/escape"),
        ("a whiteout through a symlink", vec![link("a", b'2', &target), file("a/.wh.keep", b"")], "a/.wh.keep"),
        ("hard link above", vec![link("h", b'1', "../../../etc/passwd")], "\"h\""),
        ("hard link to absolute", vec![link("h", b'1', "/etc/passwd")], "\"h\""),
        ("hard link through a symlink", vec![link("a", b'2', "/etc"), link("h", b'1', "a/passwd")], "\"h\""),
        ("hard link to nothing", vec![link("h", b'1', "none")], "\"h\""),
        ("hard link to a directory", vec![entry("d/", b'5'), link("h", b'1', "d")], "\"h\""),
        ("a file as directory", vec![file("f", b"x"), file("f/x", b"x")], "f/x"),
        ("a whiteout of ..", vec![file("a/.wh...", b"")], ".wh..."),
        ("the overlay's whiteout", vec![Entry { device: (0, 0), ..entry("w", b'3') }], "\"w\""),
        ("a device beyond numbers", vec![Entry { device: (5000, 3), ..entry("dev", b'3') }], "\"dev\""),
        ("an unknown type", vec![entry("what", b'Q')], "what"),
    ];
    std::fs::write(outside.join("keep"), "kept").unwrap();
    for (what, entries, word) in cases {
        refused(&store, what, &archive(&entries), &[word]);
    }
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 1, "something was written outside");
    refused(&store, "dots in PAX", &pax("fine", &[("path", b"../../escape")]), &["../../escape"]);
    refused(&store, "a zero byte in PAX", &pax("fine", &[("path", b"a\0b")]), &["zero byte"]);
}

#[test]
fn a_symlink_that_an_entry_replaces_is_not_written_through() {
    if !is_root() {
        return;
    }
    let (scratch, store) = empty_store("replace");
    let victim = scratch.0.join("victim");
    std::fs::write(&victim, "untouched").unwrap();
    let target = victim.display().to_string();
    let bytes = archive(&[
        link("a", b'2', &target),
        file("a", b"mine"),
        link("d", b'2', "/etc"),
        entry("d/", b'5'),
        file("d/f", b"x"),
    ]);
    let image = import(&store, &bytes, ImportOptions::default()).unwrap();
    assert_eq!(std::fs::read_to_string(&victim).unwrap(), "untouched");
    let tree = store.path().join("layers").join(image.layers()[0].hex()).join("tree");
    assert_eq!(std::fs::read_to_string(tree.join("a")).unwrap(), "mine");
    assert_eq!(std::fs::read_to_string(tree.join("d/f")).unwrap(), "x");
}

#[test]
fn damaged_archives_are_refused_and_say_where() {
    if !is_root() {
        return;
    }
    let (_scratch, store) = empty_store("damaged");
    let whole = archive(&[entry("d/", b'5'), file("d/first", &[b'x'; 5000]), file("d/second", b"y")]);
    for cut in [0, 100, 512, 1000, 3000, 6144, whole.len() - 1024] {
        refused(&store, "a cut archive", &whole[..cut], &["truncated"]);
    }
    let mut flipped = whole.clone();
    flipped[512 + 3] ^= 1;
    refused(&store, "a flipped bit", &flipped, &["corrupt", "\"d/\""]);
    refused(&store, "no archive", &[b'z'; 4096], &["not a tar archive"]);
    for tool in ["gzip", "xz", "zstd", "bzip2"] {
        let Some(packed) = compressed(tool, &whole) else { continue };
        import(&store, &packed, ImportOptions::default()).unwrap();
        store.prune(true).unwrap();
        refused(&store, tool, &packed[..packed.len() / 2], &[]);
        let mut flipped = packed.clone();
        let middle = flipped.len() / 2;
        flipped[middle] ^= 0x55;
        refused(&store, tool, &flipped, &[]);
    }
}

fn compressed(tool: &str, bytes: &[u8]) -> Option<Vec<u8>> {
    use std::process::{Command, Stdio};
    let child = Command::new(tool).arg("-c").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let Ok(mut child) = child else {
        println!("skipped: no {tool}");
        return None;
    };
    child.stdin.take().unwrap().write_all(bytes).unwrap();
    Some(child.wait_with_output().unwrap().stdout)
}

#[test]
fn bombs_and_floods_meet_limits() {
    if !is_root() {
        return;
    }
    let (_scratch, store) = empty_store("bombs");
    let limits = Limits { bytes: 1 << 20, entries: 50, devices: 3, depth: 10 };
    let refused = |what: &str, bytes: &[u8], word: &str| {
        let options = ImportOptions { limits: limits.clone(), ..ImportOptions::default() };
        let error = import(&store, bytes, options).expect_err(what);
        assert_eq!(error.kind(), Kind::Refused, "{what}: {error}");
        assert!(error.to_string().contains(word), "{what}: {error}");
        assert!(is_empty(&store), "{what} left something");
    };
    let zeros = vec![0; 3 << 20];
    refused("a big file", &archive(&[file("big", &zeros)]), "\"big\"");
    let packed = compressed("gzip", &archive(&[file("big", &zeros)])).unwrap();
    refused("a small bomb", &packed, "\"big\"");
    let names: Vec<_> = (0..60).map(|n| format!("f{n}")).collect();
    let many: Vec<_> = names.iter().map(|name| file(name, b"")).collect();
    refused("many entries", &archive(&many), "\"f50\"");
    let devices: Vec<_> = names[..5].iter().map(|name| entry(name, b'3')).collect();
    refused("many devices", &archive(&devices), "\"f3\"");
    refused("deep", &archive(&[file(&"d/".repeat(12), b"")]), "deep");
    // A header that promises more than a long name may have, and would be read into memory.
    let mut long = header(&entry("././@LongLink", b'L'), 1 << 40).as_bytes().to_vec();
    long.resize(4096, b'x');
    refused("a long name", &long, "extension header");
    let mut forever = Vec::new();
    for _ in 0..20 {
        forever.extend_from_slice(header(&Entry { data: b"", ..entry("x", b'x') }, 0).as_bytes());
    }
    refused("only extensions", &forever, "extension headers");
    // Sparse: no bytes stored, yet a size that no file has.
    let sparse = pax("s", &[("GNU.sparse.map", b"0,0"), ("GNU.sparse.size", b"99999999999999999999")]);
    refused("a size beyond numbers", &sparse, "not a number");
    let sparse = pax("s", &[("GNU.sparse.map", b"0,10,5,10"), ("GNU.sparse.size", b"100")]);
    refused("an overlapping map", &sparse, "overlaps");
}

#[test]
fn attributes_that_overlayfs_reads_are_left_out() {
    if !is_root() {
        return;
    }
    let (_scratch, store) = empty_store("attributes");
    let bytes = pax(
        "f",
        &[
            ("SCHILY.xattr.trusted.overlay.redirect", b"/../../etc"),
            ("SCHILY.xattr.user.overlay.opaque", b"y"),
            ("SCHILY.xattr.security.selinux", b"system_u"),
            ("SCHILY.xattr.user.fine", b"line\nline\0"),
        ],
    );
    let image = import(&store, &bytes, ImportOptions::default()).unwrap();
    let path = store.path().join("layers").join(image.layers()[0].hex()).join("tree/f");
    let file = std::fs::File::open(path).unwrap();
    assert_eq!(offshoot_sys::fsattr::list(&file).unwrap(), ["user.fine"]);
    let value = offshoot_sys::fsattr::get(&file, "user.fine".as_ref()).unwrap();
    assert_eq!(value.as_deref(), Some(b"line\nline\0".as_slice()));
}

#[test]
fn a_wrong_digest_is_refused() {
    if !is_root() {
        return;
    }
    let (_scratch, store) = empty_store("digest");
    let bytes = archive(&[file("f", b"x")]);
    let wrong = Digest::parse(&"0".repeat(64)).unwrap();
    let options = |digest| ImportOptions {
        digest: Some(digest),
        names: vec![Name::parse("x").unwrap()],
        ..ImportOptions::default()
    };
    let error = import(&store, &bytes, options(wrong)).unwrap_err();
    assert_eq!(error.kind(), Kind::Refused);
    let text = error.to_string();
    let found = text.split("its digest is ").nth(1).unwrap().split(',').next().unwrap();
    assert!(is_empty(&store));
    import(&store, &bytes, options(Digest::parse(found).unwrap())).unwrap();
}

#[test]
fn a_full_disk_leaves_nothing_and_has_a_hint() {
    if !is_root() {
        return;
    }
    let mount = offshoot_sys::mount::FsContext::open("tmpfs").unwrap();
    mount.string("size", "1m").unwrap();
    mount.create().unwrap();
    let mount = mount.mount(0).unwrap();
    // A detached mount is enough of a disk.
    let store = Store::open(common::within(&mount, "store")).unwrap();
    let error = import(&store, &archive(&[file("big", &vec![b'x'; 2 << 20])]), ImportOptions::default()).unwrap_err();
    assert_eq!(error.kind(), Kind::NoSpace, "{error}");
    assert!(error.to_string().contains("\"big\"") && error.hint().unwrap().contains("prune"), "{error:?}");
    assert!(is_empty(&store));
}
