//! Where results go: files whole or not at all, and plain text where nobody watches.

use crate::{Folder, QUICK};

/// A failed write leaves what was there as it was, and nothing else.
#[test]
fn a_file_that_cannot_be_written_is_refused_and_leaves_nothing() {
    let folder = Folder::small();
    std::fs::create_dir(folder.path("folder")).unwrap();
    folder.write("file", "kept");
    for option in ["--json", "--html", "--junit", "--hlog", "--postmortem"] {
        for path in ["missing/result", "folder", "file/result", "missing/"] {
            let ended = folder.run(["sim", "small.yaml", "steady", option, path]).with(2);
            assert!(ended.err.starts_with(&format!("error: {path}: cannot be written")), "{}", ended.err);
            assert_eq!(ended.err.matches("error: ").count(), 1, "{}", ended.err);
            // It is said before the work is done, not after.
            assert_eq!(ended.out, "");
        }
    }
    let line = ["line", "small.yaml", "--weather", "calm", "--svg", "missing/line.svg"];
    let ended = folder.run(line.iter().chain(&QUICK)).with(2);
    assert!(ended.err.contains("missing/line.svg: cannot be written"), "{}", ended.err);
    assert_eq!(ended.out, "");
    assert_eq!(folder.names(), ["file", "folder", "small.yaml"]);
    assert_eq!(folder.read("file"), "kept");
}

#[test]
fn a_file_that_is_there_is_replaced() {
    let folder = Folder::small();
    folder.write("r.json", "x".repeat(10_000_000));
    folder.run(["sim", "small.yaml", "steady", "--json", "r.json"]).with(0);
    assert_eq!(folder.json("r.json")["experiment"], "steady");
    assert_eq!(folder.names(), ["r.json", "small.yaml"]);
}

/// `--json /dev/stdout` and a link to a file elsewhere are written through, not replaced.
#[cfg(unix)]
#[test]
fn a_link_is_followed() {
    let folder = Folder::small();
    folder.write("target.json", "old");
    std::os::unix::fs::symlink("target.json", folder.path("link.json")).unwrap();
    folder.run(["sim", "small.yaml", "steady", "--json", "link.json"]).with(0);
    assert!(folder.path("link.json").symlink_metadata().unwrap().file_type().is_symlink());
    assert_eq!(folder.json("target.json")["experiment"], "steady");
}

/// A pipe or a device is written to; it is not replaced by a file.
#[cfg(target_os = "linux")]
#[test]
fn what_is_no_plain_file_is_written_to() {
    use std::os::unix::fs::FileTypeExt;

    let folder = Folder::small();
    let fifo = folder.path("fifo");
    let made = std::process::Command::new("mkfifo").arg(&fifo).status();
    assert!(made.is_ok_and(|status| status.success()), "mkfifo is part of every Linux");
    let reader = std::thread::spawn({
        let fifo = fifo.clone();
        move || std::fs::read_to_string(fifo).unwrap()
    });
    folder.run(["sim", "small.yaml", "steady", "--json", "fifo"]).with(0);
    assert!(std::fs::symlink_metadata(&fifo).unwrap().file_type().is_fifo(), "the pipe was replaced");
    let read: serde_json::Value = serde_json::from_str(&reader.join().unwrap()).unwrap();
    assert_eq!(read["experiment"], "steady");
}

#[test]
fn what_is_piped_has_no_colour_and_no_progress() {
    let folder = Folder::small();
    let line: Vec<&str> = ["line", "small.yaml"].into_iter().chain(QUICK).collect();
    folder.run(["sim", "small.yaml", "steady", "--json", "r"]).with(0);
    let sim = ["sim", "small.yaml", "steady"];
    let compare = ["compare", "r", "r"];
    for arguments in [&line[..], &sim, &compare] {
        let plain = folder.run(arguments).with(0);
        assert!(!plain.out.contains(['\x1b', '\r']), "{arguments:?}: {:?}", plain.out);
        assert_eq!(plain.err, "", "{arguments:?}");
        let asked = folder.run(arguments.iter().chain(&["--color", "always"])).with(0);
        assert!(asked.out.contains("\x1b["), "{arguments:?}: {}", asked.out);
        assert_eq!(uncoloured(&asked.out), plain.out, "{arguments:?}");
    }
}

/// The text without SGR sequences.
fn uncoloured(text: &str) -> String {
    let mut parts = text.split("\x1b[");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |plain, part| plain + part.split_once('m').map_or(part, |(_, rest)| rest))
}

/// `plimsoll sim ... | head -1`: whoever has read enough is no error.
#[cfg(unix)]
#[test]
fn a_reader_that_leaves_is_no_error() {
    let folder = Folder::small();
    let mut command = crate::command(&folder.path("."));
    command.args(["sim", "small.yaml", "overload", "--json", "r.json"]);
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    drop(child.stdout.take());
    let ended = child.wait_with_output().unwrap();
    // The verdict stands, and the file is written.
    assert_eq!(ended.status.code(), Some(1));
    assert_eq!(String::from_utf8_lossy(&ended.stderr), "wrote r.json\n");
    assert_eq!(folder.json("r.json")["experiment"], "overload");
}
