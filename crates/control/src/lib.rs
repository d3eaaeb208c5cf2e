//! Sources of configuration: files read, watched, merged, checked and published.
