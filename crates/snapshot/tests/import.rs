//! Everything an image can be imported from, compared file by file.

mod common;

use std::path::Path;
use std::process::Command;

use common::{import, is_root, listing, rootfs, scratch, within};
use offshoot_snapshot::{CloneOptions, ExportFormat, ImportOptions, Kind, Name, RootClone, Source, Store};

fn run(program: &str, args: &[&str]) -> bool {
    match Command::new(program).args(args).output() {
        Ok(output) if output.status.success() => true,
        Ok(output) => panic!("{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr)),
        Err(_) => {
            println!("skipped: no {program}");
            false
        }
    }
}

/// What a clone of the image shows.
fn shown(store: &Store, name: &str) -> Vec<String> {
    let clone: RootClone = store.clone_for(&store.image(name).unwrap(), "look", &CloneOptions::default()).unwrap();
    let mount = clone.mount(None).unwrap();
    let lines = listing(&within(&mount, ""));
    drop(mount);
    clone.delete().unwrap();
    lines
}

#[test]
fn tarballs_of_every_format_and_compression_give_the_same_tree() {
    if !is_root() {
        return;
    }
    let scratch = scratch("tarballs");
    let tree = scratch.0.join("tree");
    std::fs::create_dir(&tree).unwrap();
    rootfs(&tree);
    let long = tree.join("n".repeat(120)).join("m".repeat(130));
    std::fs::create_dir_all(&long).unwrap();
    std::os::unix::fs::symlink("t".repeat(150), long.join("link")).unwrap();
    let wanted = listing(&tree);
    let store = Store::open(scratch.0.join("store")).unwrap();
    let at = |name: &str| scratch.0.join(name).display().to_string();
    for format in ["gnu", "posix", "pax"] {
        for compression in ["", "--gzip", "--xz", "--zstd", "--bzip2"] {
            let file = at("archive");
            let format = format!("--format={format}");
            let mut args = vec!["--sparse", "--numeric-owner", &format, "-C", "tree", "-cf", &file, "."];
            let tree = at("tree");
            args[4] = &tree;
            args.extend(Some(compression).filter(|flag| !flag.is_empty()));
            // Tar starts the program of that name, and tells of a missing one as of any failure.
            let there = compression.strip_prefix("--").is_none_or(|program| run(program, &["--help"]));
            if there && run("tar", &args) {
                import(&store, Path::new(&file), "t").unwrap_or_else(|error| panic!("{format} {compression}: {error}"));
                assert_eq!(shown(&store, "t"), wanted, "{format} {compression}");
            }
        }
    }
    for version in ["0.0", "0.1", "1.0"] {
        let file = at("archive");
        let version = format!("--sparse-version={version}");
        if run("tar", &["--sparse", "--format=posix", &version, "-C", &at("tree"), "-cf", &file, "."]) {
            import(&store, Path::new(&file), "t").unwrap();
            assert_eq!(shown(&store, "t"), wanted, "{version}");
        }
    }
    let sparse = store.image("t").unwrap().layers()[0].hex().to_owned();
    let sparse = std::fs::metadata(store.path().join("layers").join(sparse).join("tree/var/sparse")).unwrap();
    assert!(std::os::unix::fs::MetadataExt::blocks(&sparse) < 64, "holes were filled");
}

#[test]
fn what_is_exported_can_be_imported_and_is_the_same() {
    if !is_root() {
        return;
    }
    let scratch = scratch("export");
    let (store, image) = common::store_with_image(&scratch);
    let wanted = shown(&store, "small");
    for (format, name) in
        [(ExportFormat::Tar, "a.tar"), (ExportFormat::TarGzip, "a.tar.gz"), (ExportFormat::Oci, "a.oci")]
    {
        let path = scratch.0.join(name);
        store.export_image(&image, format, std::fs::File::create(&path).unwrap()).unwrap();
        let again = import(&store, &path, "again").unwrap();
        assert_eq!(shown(&store, "again"), wanted, "{name}");
        // The archive of a tree depends on the tree alone.
        assert_eq!(again.layers(), image.layers(), "{name}");
    }
    let tar = scratch.0.join("a.tar").display().to_string();
    let out = scratch.0.join("out");
    std::fs::create_dir(&out).unwrap();
    if run("tar", &["-C", &out.display().to_string(), "-xpf", &tar]) {
        assert_eq!(listing(&out), listing(&scratch.0.join("tree")));
    }
}

/// An OCI layout with three layers: the second hides, replaces and adds, the third makes a directory opaque.
fn layered(at: &Path, second: &str) -> bool {
    let script = r#"
        set -e; cd "$0"; umask 022
        mkdir -p 1/etc/conf.d 1/usr/share/doc 1/opt/app; echo one > 1/etc/one; echo two > 1/etc/two
        echo a > 1/etc/conf.d/a; echo doc > 1/usr/share/doc/readme; echo app > 1/opt/app/old
        mkdir -p 2/etc 2/usr/share; echo TWO > 2/etc/two; touch 2/etc/.wh.one; touch 2/usr/share/.wh.doc; echo new > 2/etc/new
        mkdir -p 3/opt/app 3/etc/conf.d; touch 3/opt/app/.wh..wh..opq; echo app2 > 3/opt/app/new; echo b > 3/etc/conf.d/b
        mkdir -p layout/blobs/sha256; layers= ; ids=
        blob() { h=$(sha256sum < "$1" | cut -d' ' -f1); mv "$1" layout/blobs/sha256/$h; echo $h; }
        for n in 1 2 3; do
            tar -C $n --sort=name -cf t$n .; id=$(sha256sum < t$n | cut -d' ' -f1); ids="$ids,\"sha256:$id\""
            if [ $n = 2 ] && [ $1 = zstd ]; then zstd -q --rm t$n -o z$n; kind=tar+zstd; else gzip -c t$n > z$n; rm t$n; kind=tar+gzip; fi
            size=$(stat -c %s z$n); h=$(blob z$n)
            layers="$layers,{\"mediaType\":\"application/vnd.oci.image.layer.v1.$kind\",\"digest\":\"sha256:$h\",\"size\":$size}"
        done
        printf '{"architecture":"amd64","os":"linux","config":{"Cmd":["/opt/app/new"]},"rootfs":{"type":"layers","diff_ids":[%s]}}' "${ids#,}" > c
        csize=$(stat -c %s c); c=$(blob c)
        printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:%s","size":%s},"layers":[%s]}' $c $csize "${layers#,}" > m
        msize=$(stat -c %s m); m=$(blob m)
        echo '{"imageLayoutVersion":"1.0.0"}' > layout/oci-layout
        printf '{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:%s","size":%s,"annotations":{"org.opencontainers.image.ref.name":"app:1"}}]}' $m $msize > layout/index.json
        tar -C layout -cf layout.tar .
    "#;
    let made = Command::new("bash").args(["-c", script]).arg(at).arg(second).status().unwrap().success();
    if !made {
        println!("skipped: the layout could not be made (zstd?)");
    }
    made
}

const LAYERED: [&str; 6] = ["etc/conf.d/a", "etc/conf.d/b", "etc/new", "etc/two", "opt/app/new", "usr/share"];

fn names(lines: &[String]) -> Vec<&str> {
    let dirs = ["etc", "etc/conf.d", "opt", "opt/app", "usr"];
    lines.iter().filter_map(|line| line.split(' ').next()).filter(|name| !dirs.contains(name)).collect()
}

#[test]
fn images_in_layers_hide_what_they_delete() {
    if !is_root() {
        return;
    }
    let scratch = scratch("layered");
    if !layered(&scratch.0, "zstd") {
        return;
    }
    let store = Store::open(scratch.0.join("store")).unwrap();
    let path = |name: &str| scratch.0.join(name);
    let look = |name: &str| {
        for driver in ["overlay", "dir"] {
            let options = CloneOptions { driver: driver.parse().unwrap(), ..CloneOptions::default() };
            let clone = store.clone_for(&store.image(name).unwrap(), "look", &options).unwrap();
            let mount = clone.mount(None).unwrap();
            let lines = listing(&within(&mount, ""));
            assert_eq!(names(&lines), LAYERED, "{name} {driver}");
            assert!(lines.iter().any(|line| line.contains("\"TWO\\n\"")), "{driver}");
            assert_eq!(clone.diff().unwrap(), [], "{driver}");
            drop(mount);
            clone.delete().unwrap();
        }
    };
    let plain = |source: &Path| store.import(Source::Path(source.to_owned()), &ImportOptions::default(), &mut |_| ());
    let image = plain(&path("layout")).unwrap();
    assert_eq!(image.names(), [Name::parse("app:1").unwrap()]);
    assert_eq!(image.config()["config"]["Cmd"][0], "/opt/app/new");
    look("app:1");
    assert_eq!(plain(&path("layout.tar")).unwrap().id(), image.id());
    run("gzip", &["-k", &path("layout.tar").display().to_string()]);
    assert_eq!(plain(&path("layout.tar.gz")).unwrap().id(), image.id());
    store.prune(true).unwrap();
    // docker archives know no zstd.
    std::fs::create_dir(path("gzip")).unwrap();
    assert!(layered(&path("gzip"), "gzip"));
    let (from, to) = (format!("oci:{}:app:1", path("gzip/layout").display()), path("saved.tar").display().to_string());
    if run("skopeo", &["--insecure-policy", "copy", &from, &format!("docker-archive:{to}:saved:2")]) {
        let image = plain(&path("saved.tar")).unwrap();
        assert_eq!(image.names(), [Name::parse("saved:2").unwrap()]);
        look("saved:2");
        store.export_image(&image, ExportFormat::Oci, std::fs::File::create(path("out.oci")).unwrap()).unwrap();
        let from = format!("oci-archive:{}", path("out.oci").display());
        run("skopeo", &["--insecure-policy", "copy", &from, &format!("dir:{}", path("dir").display())]);
        assert_eq!(
            store.import(Source::Path(path("out.oci")), &ImportOptions::default(), &mut |_| ()).unwrap().layers().len(),
            1
        );
    }
    damaged_layouts(&store, &scratch.0);
}

/// Each blob in turn with one byte changed, cut, or away.
fn damaged_layouts(store: &Store, at: &Path) {
    store.prune(true).unwrap();
    let blobs = at.join("layout/blobs/sha256");
    for blob in std::fs::read_dir(&blobs).unwrap().map(|entry| entry.unwrap().path()) {
        let whole = std::fs::read(&blob).unwrap();
        let mut flipped = whole.clone();
        flipped[whole.len() / 2] ^= 1;
        for bytes in [Some(flipped), Some(whole[..whole.len() - 1].to_vec()), None] {
            match &bytes {
                Some(bytes) => std::fs::write(&blob, bytes).unwrap(),
                None => std::fs::remove_file(&blob).unwrap(),
            }
            let error =
                store.import(Source::Path(at.join("layout")), &ImportOptions::default(), &mut |_| ()).unwrap_err();
            assert!(matches!(error.kind(), Kind::Refused | Kind::NotFound), "{error}");
            assert!(store.images().unwrap().is_empty());
            assert_eq!(std::fs::read_dir(store.path().join("layers")).unwrap().count(), 0);
            assert_eq!(std::fs::read_dir(store.path().join("tmp")).unwrap().count(), 0);
        }
        std::fs::write(&blob, whole).unwrap();
    }
}

#[test]
fn names_tags_ids_and_removal_behave_as_people_know_them() {
    if !is_root() {
        return;
    }
    let scratch = scratch("tags");
    let (store, image) = common::store_with_image(&scratch);
    store.tag(&image, &Name::parse("small:1").unwrap()).unwrap();
    for reference in ["small", "small:latest", "small:1", image.id().hex(), image.id().short(), &image.id().to_string()]
    {
        assert_eq!(store.image(reference).unwrap().id(), image.id(), "{reference}");
    }
    assert_eq!(store.image("none").unwrap_err().kind(), Kind::NotFound);
    let clone = store.clone_for(&image, "user", &CloneOptions::default()).unwrap();
    assert!(!store.remove_image("small:1").unwrap());
    let busy = store.remove_image("small").unwrap_err();
    assert_eq!(busy.kind(), Kind::Busy);
    assert!(busy.to_string().contains("\"user\""), "{busy}");
    clone.delete().unwrap();
    assert!(store.remove_image("small").unwrap());
    assert_eq!(std::fs::read_dir(store.path().join("layers")).unwrap().count(), 0);
}
