use std::path::Path;

/// `docs/system-file.md` is what the tables say. `PLIMSOLL_WRITE=1` writes it.
#[test]
#[allow(clippy::disallowed_methods, reason = "the switch of a test")]
fn reference_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/system-file.md");
    let reference = plimsoll_model::reference();
    if std::env::var("PLIMSOLL_WRITE").is_ok() {
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("the folder");
        std::fs::write(&path, &reference).expect("the page");
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == reference,
        "docs/system-file.md is out of date: PLIMSOLL_WRITE=1 cargo test -p plimsoll-model --test file reference"
    );
}

#[test]
fn every_link_has_its_heading() {
    let reference = plimsoll_model::reference();
    let headings: Vec<String> = reference
        .lines()
        .filter_map(|line| line.strip_prefix("## "))
        .map(|heading| heading.to_lowercase().replace(' ', "-"))
        .collect();
    let mut links = 0;
    for link in reference.split("](#").skip(1) {
        let anchor = link.split(')').next().unwrap();
        assert!(headings.iter().any(|heading| heading == anchor), "no heading for #{anchor}");
        links += 1;
    }
    assert!(links > 50);
}
