//! What must hold for every path that passes.

use super::route::path::{Rules, normalise};

/// Normalises the input under each of the Module's rules. The first byte picks them.
pub(crate) fn paths(input: &[u8]) {
    let [choice, raw @ ..] = input else { return };
    let Ok(raw) = std::str::from_utf8(raw) else {
        return;
    };
    let rules = Rules {
        merge_slashes: choice & 1 != 0,
        escaped_slashes_refused: choice & 2 != 0,
    };
    let Ok(path) = normalise(raw, &rules) else {
        return;
    };
    let again = normalise(&path, &rules);
    assert_eq!(
        again.as_deref(),
        Ok(&*path),
        "a second time changes nothing"
    );
    if path == "*" {
        return;
    }
    assert!(path.starts_with('/'), "{path:?}");
    assert!(
        path.split('/')
            .all(|segment| segment != "." && segment != ".."),
        "{path:?}"
    );
    assert!(
        path.bytes()
            .all(|byte| byte > b' ' && byte != 0x7f && byte != b'\\'),
        "{path:?}"
    );
    let lower = path.to_ascii_lowercase();
    assert!(
        !lower.contains("%2e") && !lower.contains("%00") && !lower.contains("%61"),
        "{path:?}"
    );
    if rules.merge_slashes {
        assert!(!path.contains("//"), "{path:?}");
    }
    if rules.escaped_slashes_refused {
        assert!(!lower.contains("%2f") && !lower.contains("%5c"), "{path:?}");
    }
}
