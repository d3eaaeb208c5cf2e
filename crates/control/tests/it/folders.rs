//! Which files of a folder count.

use std::fs;

use crate::{Lab, route};

#[tokio::test]
async fn a_folder_gives_its_files_and_those_of_the_folders_in_it() {
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
            ("inner/.git/x.yaml", &route("/hidden")),
            ("inner/deeper/f.yaml", &route("/f")),
            ("folder.yaml/e.yaml", &route("/e")),
            ("data/kafka/node.json", r#"{"cluster_id": "c"}"#),
            ("data/kafka/topics.json", r#"{"topics": []}"#),
        ],
    )
    .await;
    assert_eq!(lab.tell(), "/a /b /c /e /d /f\n");
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

#[tokio::test]
async fn a_folder_in_a_folder_is_watched_from_the_moment_it_is_there() {
    let mut lab = Lab::start("", &[("a.yaml", &route("/a"))]).await;
    lab.until_routes(&["/a"]).await;
    lab.write("inner/deep/b.yaml", &route("/b"));
    lab.until_routes(&["/a", "/b"]).await;
    lab.write("inner/deep/b.yaml", &route("/c"));
    lab.until_routes(&["/a", "/c"]).await;
    fs::remove_dir_all(lab.path("inner")).expect("the folder goes");
    lab.until_routes(&["/a"]).await;
}

#[tokio::test]
async fn a_link_that_leads_back_is_not_followed() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    crate::write(&dir.path().join("a.yaml"), &route("/a"));
    std::os::unix::fs::symlink(dir.path(), dir.path().join("again")).expect("a link");
    let files = control::files::read(&[dir.path().to_owned()]);
    assert!(
        (1..=9).contains(&files.sources.len()),
        "{}",
        files.sources.len()
    );
}
