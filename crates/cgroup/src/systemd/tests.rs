//! Against a bus that a thread plays on the other end of a socket pair.

use super::wire::tests::{error, reply, signal};
use super::*;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::thread::{JoinHandle, spawn};

/// What the other side does: the script's turns, each waiting for what was sent and giving bytes back.
enum Turn {
    /// The client's words must hold this one; the answer goes out when they do.
    Expect(&'static [u8], Vec<u8>),
}

fn play(script: Vec<Turn>) -> (UnixStream, JoinHandle<Vec<u8>>) {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let server = spawn(move || {
        let (mut all, mut seen) = (Vec::new(), 0);
        for Turn::Expect(words, answer) in script {
            let mut chunk = [0; 65536];
            while !all[seen..].windows(words.len()).any(|w| w == words) {
                match theirs.read(&mut chunk).unwrap() {
                    0 => panic!("the client went away before {:?}", String::from_utf8_lossy(words)),
                    n => all.extend_from_slice(&chunk[..n]),
                }
            }
            seen = all.len();
            theirs.write_all(&answer).unwrap();
        }
        all
    });
    (ours, server)
}

/// What systemd and the bus daemons answer to an empty identity.
fn login() -> Vec<Turn> {
    vec![Turn::Expect(b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n", b"DATA\r\nOK 1234deadbeef\r\n".to_vec())]
}

fn bus(script: Vec<Turn>, daemon: bool) -> (Bus, JoinHandle<Vec<u8>>) {
    let (stream, server) = play(login().into_iter().chain(script).collect());
    let bus = Connection::authenticate(stream).and_then(|connection| Bus::over(connection, daemon)).unwrap();
    (bus, server)
}

fn unit() -> SystemdUnit {
    let properties = vec![("Slice".into(), Value::str("a.slice")), ("Delegate".into(), Value::Bool(true))];
    SystemdUnit { name: "p-n.scope".into(), slice: "a.slice".into(), properties }
}

const JOB: &str = "/org/freedesktop/systemd1/job/9";

fn job_reply(serial: u32) -> Vec<u8> {
    reply(serial, "o", &[Value::ObjectPath(JOB.into())])
}

fn removed(sender: &str, job: &str, result: &str) -> Vec<u8> {
    let body = [Value::U32(9), Value::ObjectPath(job.into()), Value::str("p-n.scope"), Value::str(result)];
    signal(sender, "JobRemoved", "uoss", &body)
}

#[test]
fn start_waits_for_its_own_job() {
    let answer = [
        signal(":1.1", "UnitNew", "so", &[Value::str("x"), Value::ObjectPath("/x".into())]),
        removed(":1.9", JOB, "done"),
        job_reply(1),
        removed(":1.9", JOB, "failed"),
        removed(":1.1", "/org/freedesktop/systemd1/job/8", "failed"),
        removed(":1.1", JOB, "done"),
    ];
    let (mut bus, server) = bus(vec![Turn::Expect(b"PIDs", answer.concat())], false);
    bus.start_unit(&unit(), &[4711]).unwrap();
    let sent = server.join().unwrap();
    let wanted: [&[u8]; 4] = [b"StartTransientUnit", b"p-n.scope\0", b"replace\0", &4711u32.to_le_bytes()];
    for words in wanted {
        assert!(sent.windows(words.len()).any(|w| w == words));
    }
    assert!(!sent.windows(8).any(|w| w == b"AddMatch"), "systemd's own socket sends signals unasked");
}

#[test]
fn a_daemon_wants_hello_and_a_match() {
    let script = vec![
        Turn::Expect(b"Hello", reply(1, "s", &[Value::str(":1.5")])),
        Turn::Expect(b"StopUnit", [job_reply(3), removed(":1.1", JOB, "done")].concat()),
        Turn::Expect(b"ResetFailedUnit", error(4, "org.freedesktop.systemd1.NoSuchUnit", "Unit p-n.scope not loaded.")),
    ];
    let (mut bus, server) = bus(script, true);
    bus.stop_unit("p-n.scope").unwrap();
    let sent = server.join().unwrap();
    assert!(sent.windows(8).any(|w| w == b"AddMatch"));
}

#[test]
fn a_left_over_unit_is_reset_and_the_start_repeated_once() {
    let exists = |serial| error(serial, "org.freedesktop.systemd1.UnitExists", "Unit p-n.scope already exists.");
    let script = vec![
        Turn::Expect(b"StartTransientUnit", exists(1)),
        Turn::Expect(b"ResetFailedUnit", reply(2, "", &[])),
        Turn::Expect(b"StartTransientUnit", [job_reply(3), removed(":1.1", JOB, "done")].concat()),
    ];
    let (mut first, server) = bus(script, false);
    first.start_unit(&unit(), &[1]).unwrap();
    server.join().unwrap();

    let script = vec![
        Turn::Expect(b"StartTransientUnit", exists(1)),
        Turn::Expect(b"ResetFailedUnit", reply(2, "", &[])),
        Turn::Expect(b"StartTransientUnit", exists(3)),
    ];
    let (mut second, server) = bus(script, false);
    let text = second.start_unit(&unit(), &[1]).unwrap_err().to_string();
    assert!(text.contains("failed to start systemd unit \"p-n.scope\": Unit p-n.scope already exists."), "{text}");
    server.join().unwrap();
}

#[test]
fn a_job_that_fails_is_an_error() {
    let script = vec![
        Turn::Expect(b"StartTransientUnit", [job_reply(1), removed(":1.1", JOB, "failed")].concat()),
        Turn::Expect(b"ResetFailedUnit", reply(2, "", &[])),
    ];
    let (mut bus, server) = bus(script, false);
    assert!(bus.start_unit(&unit(), &[1]).unwrap_err().to_string().ends_with("its job ended with \"failed\""));
    server.join().unwrap();
}

#[test]
fn a_unit_that_is_gone_has_stopped() {
    let gone = |serial| error(serial, "org.freedesktop.systemd1.NoSuchUnit", "Unit p-n.scope not loaded.");
    let script = vec![Turn::Expect(b"StopUnit", gone(1)), Turn::Expect(b"ResetFailedUnit", gone(2))];
    let (mut bus, server) = bus(script, false);
    bus.stop_unit("p-n.scope").unwrap();
    server.join().unwrap();
}

#[test]
fn properties_are_read_by_type() {
    let script = vec![
        Turn::Expect(b"Version", reply(1, "v", &[Value::Variant(Box::new(Value::str("257.13-1~deb13u1")))])),
        Turn::Expect(b"p_2dn_2escope", reply(2, "v", &[Value::Variant(Box::new(Value::str("/a.slice/p-n.scope")))])),
        Turn::Expect(b"ControlGroup", reply(3, "v", &[Value::Variant(Box::new(Value::U32(1)))])),
    ];
    let (mut bus, server) = bus(script, false);
    assert_eq!(bus.version().unwrap(), 257);
    assert_eq!(bus.control_group("p-n.scope").unwrap(), "/a.slice/p-n.scope");
    assert!(bus.manager_control_group().unwrap_err().to_string().contains("ControlGroup is of type \"u\""));
    server.join().unwrap();
}

#[test]
fn authentication_takes_only_ok() {
    for answer in ["REJECTED EXTERNAL\r\n", "DATA\r\nREJECTED\r\n", "DATA\r\nOK\r\n", "ERROR\r\n", "OK 12\r\n"] {
        let (stream, server) = play(vec![Turn::Expect(b"BEGIN\r\n", answer.as_bytes().to_vec())]);
        assert!(Connection::authenticate(stream).is_err(), "{answer}");
        server.join().unwrap();
    }
    let (stream, server) = play(vec![Turn::Expect(b"BEGIN\r\n", vec![b'x'; 9000])]);
    assert!(Connection::authenticate(stream).is_err());
    server.join().unwrap();
}

#[test]
fn a_bus_that_goes_away_is_an_error() {
    let (mut bus, server) = bus(vec![Turn::Expect(b"Version", b"l\x02\x00\x01".to_vec())], false);
    let text = bus.version().unwrap_err().to_string();
    assert!(text.ends_with("version: the bus closed the connection"), "{text}");
    server.join().unwrap();
}

#[test]
fn sockets_in_order() {
    let of = |user, vars: &[(&str, &str)]| {
        addresses(user, |name| vars.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).into()))
            .map(|list| list.iter().map(|(a, daemon)| format!("{} {daemon}", a.display())).collect::<Vec<_>>())
    };
    assert_eq!(of(false, &[]).unwrap(), ["/run/systemd/private false", "/run/dbus/system_bus_socket true"]);
    assert_eq!(of(false, &[("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/x")]).unwrap(), ["/x true"]);
    let session = [("DBUS_SESSION_BUS_ADDRESS", "unix:path=/x"), ("XDG_RUNTIME_DIR", "/run/user/7")];
    assert_eq!(of(true, &session).unwrap(), ["/x true"]);
    assert_eq!(of(true, &session[1..]).unwrap(), ["/run/user/7/systemd/private false", "/run/user/7/bus true"]);
    assert!(of(true, &[]).is_err());
}

#[test]
fn versions() {
    for (text, number) in [("252.39-1~deb12u1", 252), ("v245.4-1.fc32", 245), ("\"v241\"", 241), ("257", 257)] {
        assert_eq!(version(text), Some(number));
    }
    assert_eq!(version("unknown"), None);
}

#[test]
fn object_paths() {
    assert_eq!(unit_path("9-n.scope"), "/org/freedesktop/systemd1/unit/_39_2dn_2escope");
}

#[test]
fn the_owner_of_a_manager() {
    for (cgroup, uid) in [
        ("/user.slice/user-1000.slice/user@1000.service", 1000),
        ("/user.slice/user-0.slice/user@0.service", 0),
        ("/init.scope", 0),
        ("", 0),
        ("/user.slice/user-x.slice", 0),
    ] {
        assert_eq!(owner(cgroup), uid, "{cgroup}");
    }
}
