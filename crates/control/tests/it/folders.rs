//! Which files of a folder count.

use std::fs;

use crate::{Lab, route};

#[tokio::test]
async fn a_folder_gives_its_own_files_in_order() {
    let lab = Lab::start(
        "",
        &[
            ("b.yml", &route("/b")),
            ("a.yaml", &route("/a")),
            (
                "c.json",
                r#"{"routes": [{"prefix": "/c", "service": "s"}]}"#,
            ),
            (".hidden.yaml", &route("/hidden")),
            ("readme.txt", "routes: ["),
            ("inner/d.yaml", &route("/d")),
            ("folder.yaml/e.yaml", &route("/e")),
        ],
    )
    .await;
    assert_eq!(lab.tell(), "/a /b /c\n");
}

#[tokio::test]
async fn a_file_that_is_no_text_costs_itself_only() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    fs::write(dir.path().join("a.yaml"), b"routes: []\n\xff\n").expect("a file");
    crate::write(&dir.path().join("b.yaml"), &route("/b"));
    let lab = Lab::start_in(dir, "").await;
    assert_eq!(
        lab.tell(),
        "/b\na.yaml: error: could not be read: it is no UTF-8 text, see line 2\n"
    );
}

#[tokio::test]
async fn the_same_file_twice_is_read_once() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let file = dir.path().join("a.yaml");
    crate::write(&file, &route("/a"));
    let files = control::files::read(&[file.clone(), dir.path().to_owned(), file]);
    assert_eq!((files.sources.len(), files.problems.len()), (1, 0));
}
