//! A change of a file becomes a change of what runs.

use std::fs;
use std::os::unix::fs::symlink;
use std::time::Duration;

use control::Options;
use observe::metrics::Metrics;
use tokio::time;
use tokio_util::sync::CancellationToken;

use crate::{Lab, WAIT_MAX, route, routes};

#[tokio::test]
async fn an_edit_is_published_with_a_new_version() {
    let mut lab = Lab::start("nuncio.yaml", &[("nuncio.yaml", &route("/a"))]).await;
    let first = lab.until_routes(&["/a"]).await;
    assert_eq!((first.version, first.problems.len()), (1, 0));
    assert!(first.good_at.is_some());
    lab.write("nuncio.yaml", &route("/b"));
    let second = lab.until_routes(&["/b"]).await;
    assert_eq!(second.version, 2);
    let metrics = lab.metrics.encode();
    assert!(metrics.contains("nuncio_config_version{} 2"), "{metrics}");
    assert!(
        metrics.contains("nuncio_config_changes_total{} 2"),
        "{metrics}"
    );
}

#[tokio::test]
async fn a_file_may_be_replaced_by_another() {
    let mut lab = Lab::start("nuncio.yaml", &[("nuncio.yaml", &route("/0"))]).await;
    for turn in 1..20 {
        lab.write("next", &route(&format!("/{turn}")));
        fs::rename(lab.path("next"), lab.path("nuncio.yaml")).expect("a rename");
        lab.until_routes(&[&format!("/{turn}")]).await;
    }
}

#[tokio::test]
async fn a_mounted_config_map_is_swapped_at_once() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = |name: &str| dir.path().join(name);
    let generation = |name: &str, prefix: &str| {
        crate::write(&path(name).join("nuncio.yaml"), &route(prefix));
        symlink(name, path("..data_tmp")).expect("a link");
        fs::rename(path("..data_tmp"), path("..data")).expect("a rename");
    };
    generation("..2026_1", "/old");
    symlink("..data/nuncio.yaml", path("nuncio.yaml")).expect("a link");
    let mut lab = Lab::start_in(dir, "").await;
    lab.until_routes(&["/old"]).await;
    let path = |name: &str| lab.dir.path().join(name);
    crate::write(&path("..2026_2").join("nuncio.yaml"), &route("/new"));
    symlink("..2026_2", path("..data_tmp")).expect("a link");
    fs::rename(path("..data_tmp"), path("..data")).expect("a rename");
    fs::remove_dir_all(path("..2026_1")).expect("the old generation goes");
    lab.until_routes(&["/new"]).await;
}

#[tokio::test]
async fn a_change_that_nothing_tells_of_is_seen_all_the_same() {
    // The second link stands in a folder that is not watched.
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = |name: &str| dir.path().join(name);
    crate::write(&path("one/nuncio.yaml"), &route("/one"));
    crate::write(&path("two/nuncio.yaml"), &route("/two"));
    fs::create_dir(path("links")).expect("a folder");
    symlink("../one/nuncio.yaml", path("links/current")).expect("a link");
    fs::create_dir(path("conf")).expect("a folder");
    symlink("../links/current", path("conf/nuncio.yaml")).expect("a link");
    let mut lab = Lab::start_in(dir, "conf/nuncio.yaml").await;
    lab.until_routes(&["/one"]).await;
    symlink("../two/nuncio.yaml", lab.path("links/next")).expect("a link");
    fs::rename(lab.path("links/next"), lab.path("links/current")).expect("a rename");
    lab.until_routes(&["/two"]).await;
}

#[tokio::test]
async fn the_last_of_many_changes_wins() {
    let mut lab = Lab::start("", &[("a.yaml", &route("/a"))]).await;
    for turn in 0..200 {
        lab.write("b.yaml", &route(&format!("/{turn}")));
        fs::remove_file(lab.path("b.yaml")).expect("a file");
    }
    lab.write("b.yaml", &route("/last"));
    lab.until_routes(&["/a", "/last"]).await;
    for turn in 0..200 {
        lab.write("b.yaml", &route(&format!("/{turn}")));
    }
    fs::remove_file(lab.path("b.yaml")).expect("a file");
    lab.until_routes(&["/a"]).await;
}

#[tokio::test]
async fn a_file_that_is_being_written_is_not_taken_half() {
    let text = |turn: u32| {
        let lines: String = (0..200)
            .map(|index| format!("- {{ prefix: /{turn}/{index}, service: s }}\n"))
            .collect();
        format!("routes:\n{lines}")
    };
    let mut lab = Lab::start("nuncio.yaml", &[("nuncio.yaml", &text(0))]).await;
    let mut seen = lab.control.published();
    let watcher = tokio::spawn(async move {
        let mut least = usize::MAX;
        loop {
            least = least.min(seen.borrow_and_update().config.mappings.len());
            if seen.changed().await.is_err() {
                return least;
            }
        }
    });
    for turn in 1..50 {
        lab.write("nuncio.yaml", &text(turn)); // truncates, then writes
    }
    lab.until(|now| routes(now).starts_with("/49/0 ")).await;
    drop(lab);
    let least = time::timeout(WAIT_MAX, watcher)
        .await
        .expect("the loop ends")
        .expect("it watched");
    assert_eq!(least, 200);
}

#[tokio::test]
async fn a_folder_may_go_and_come_back() {
    let mut lab = Lab::start("conf", &[("conf/a.yaml", &route("/a"))]).await;
    lab.until_routes(&["/a"]).await;
    fs::remove_dir_all(lab.path("conf")).expect("the folder goes");
    let gone = lab.until(|now| !now.problems.is_empty()).await;
    assert_eq!(routes(&gone), "/a", "what ran goes on running");
    lab.write("conf/b.yaml", &route("/b"));
    lab.until_routes(&["/b"]).await;
    lab.write("conf/b.yaml", &route("/c"));
    let last = lab.until_routes(&["/c"]).await;
    assert_eq!(last.problems, []);
}

#[tokio::test]
async fn told_addresses_stand_over_the_files() {
    let mut lab = Lab::start("nuncio.yaml", &[("nuncio.yaml", &route("/a"))]).await;
    let address = "127.0.0.1:4000".parse().expect("a literal address");
    lab.control.tell("default", "s", Some(vec![address]));
    let now = lab
        .until(|now| now.config.endpoints.knows("s", "default"))
        .await;
    assert_eq!(
        now.config.endpoints.find("s", "default", None),
        Some(vec![address])
    );
    lab.write("nuncio.yaml", &route("/b"));
    let now = lab.until_routes(&["/b"]).await;
    assert!(
        now.config.endpoints.knows("s", "default"),
        "an edit does not forget them"
    );
    lab.control.tell("default", "s", None);
    lab.until(|now| !now.config.endpoints.knows("s", "default"))
        .await;
}

#[tokio::test]
async fn what_was_missing_at_the_start_is_taken_when_it_comes() {
    let mut lab = Lab::start("nuncio.yaml", &[]).await;
    let first = lab.control.current();
    assert_eq!((first.version, first.good_at), (1, None));
    assert!(
        first.problems[0]
            .to_string()
            .ends_with("nuncio.yaml: error: could not be read: there is no such file or folder")
    );
    lab.write("nuncio.yaml", &route("/a"));
    lab.until_routes(&["/a"]).await;
}

#[tokio::test]
async fn it_ends_when_told() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let stop = CancellationToken::new();
    let options = Options {
        poll: Duration::from_secs(3600),
        ..Options::new(vec![dir.path().to_owned()])
    };
    let control = control::Control::start(options, &Metrics::default(), stop.clone()).await;
    let mut published = control.published();
    stop.cancel();
    let ended = time::timeout(WAIT_MAX, async {
        while published.changed().await.is_ok() {}
    })
    .await;
    ended.expect("the loop ends");
}

const SLICE: &str = "apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: { name: s-1, labels: { kubernetes.io/service-name: s } }
ports: [{ port: 80 }]
endpoints: [{ addresses: [10.0.0.1] }]
";

#[tokio::test]
async fn endpoints_lines_and_comments_make_no_new_version() {
    let mut lab = Lab::start("", &[("a.yaml", &route("/a")), ("b.yaml", SLICE)]).await;
    let first = lab.until_routes(&["/a"]).await;
    lab.write("b.yaml", &SLICE.replace("10.0.0.1", "10.0.0.2"));
    let address = "10.0.0.2:80".parse().expect("a literal address");
    let moved = lab
        .until(|now| now.config.endpoints.find("s", "default", None) == Some(vec![address]))
        .await;
    assert_eq!(moved.version, first.version);
    lab.write("a.yaml", &format!("# What is new?\n\n{}", route("/a")));
    let later = lab
        .until(|now| now.config.mappings[0].origin.line == 4)
        .await;
    assert_eq!(later.version, first.version);
    lab.write("a.yaml", &route("/b"));
    let changed = lab.until_routes(&["/b"]).await;
    assert_eq!(changed.version, first.version + 1);
}

#[tokio::test]
async fn staleness_is_told_until_all_runs() {
    let mut lab = Lab::start("nuncio.yaml", &[("nuncio.yaml", &route("/a"))]).await;
    let first = lab.until_routes(&["/a"]).await;
    assert_eq!(first.stale_since, None);
    lab.write("nuncio.yaml", "routes: [");
    let refused = lab.until(|now| now.stale_since.is_some()).await;
    lab.write("nuncio.yaml", "routes: [ #");
    let again = lab.until(|now| now.sources[0].text.ends_with('#')).await;
    assert_eq!(again.stale_since, refused.stale_since, "since the first");
    let metrics = lab.metrics.encode();
    assert!(
        !metrics.contains("nuncio_config_refused_at_seconds{} 0"),
        "{metrics}"
    );
    time::timeout(WAIT_MAX, async {
        while lab
            .metrics
            .encode()
            .contains("nuncio_config_stale_seconds{} 0")
        {
            time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .expect("the time goes on");
    lab.write("nuncio.yaml", &route("/b"));
    let good = lab.until_routes(&["/b"]).await;
    assert_eq!(good.stale_since, None);
    assert!(
        lab.metrics
            .encode()
            .contains("nuncio_config_stale_seconds{} 0")
    );
}

#[tokio::test]
async fn a_storm_of_files_that_come_and_go_ends_where_it_should() {
    let mut lab = Lab::start("", &[("keep.yaml", &route("/keep"))]).await;
    lab.until_routes(&["/keep"]).await;
    for turn in 0..300 {
        let name = format!("storm-{}.yaml", turn % 7);
        match turn % 3 {
            0 => lab.write(&name, &route(&format!("/{turn}"))),
            // A file that is only begun.
            1 => lab.write(&name, "routes:\n- { prefix: /x, serv"),
            _ => _ = fs::remove_file(lab.path(&name)),
        }
        if turn % 20 == 0 {
            time::sleep(Duration::from_millis(1)).await;
        }
    }
    for name in 0..7 {
        _ = fs::remove_file(lab.path(&format!("storm-{name}.yaml"))); // it may be gone already
    }
    lab.write("last.yaml", &route("/last"));
    let last = lab
        .until(|now| routes(now) == "/keep /last" && now.problems.is_empty())
        .await;
    assert!(last.stale_since.is_none());
}

#[tokio::test]
async fn a_file_that_vanishes_and_comes_back_is_followed() {
    let mut lab = Lab::start("", &[("a.yaml", &route("/a")), ("b.yaml", &route("/b"))]).await;
    lab.until_routes(&["/a", "/b"]).await;
    for turn in 0..5 {
        fs::remove_file(lab.path("b.yaml")).expect("it is there");
        lab.until_routes(&["/a"]).await;
        let prefix = format!("/b{turn}");
        lab.write("b.yaml", &route(&prefix));
        lab.until_routes(&["/a", &prefix]).await;
    }
}
