//! The data directory: whose it is, that it stays so, and that nobody else's is touched.

use std::fs;
use std::path::Path;

use maitred_storage::{DataDir, HostIdentity, StorageError};

use crate::support::identity;

fn names(dir: &Path) -> Vec<String> {
    let names = fs::read_dir(dir).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.collect()
}

fn joining() -> HostIdentity {
    HostIdentity::joining(77, identity(1).name)
}

#[test]
fn created_once_and_opened_again_as_the_same_host() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("a/b");
    let missing = DataDir::open(&path).unwrap_err();
    assert!(matches!(missing, StorageError::Missing { .. }));
    assert_eq!(DataDir::peek(&path).unwrap(), None);
    assert!(!path.exists());
    let made = DataDir::open_or_create(&path, &identity(7)).unwrap();
    assert!(made.is_new() && made.tls().is_dir() && made.free_bytes().unwrap() > 0);
    assert_eq!(DataDir::peek(&path).unwrap(), Some(identity(7)));
    drop(made);
    let opened = DataDir::open_or_create(&path, &identity(8)).unwrap();
    assert_eq!((opened.host(), opened.is_new()), (7, false));
    drop(opened);
    assert_eq!(*DataDir::open(&path).unwrap().identity(), identity(7));
    let again = DataDir::create(&path, &identity(7)).unwrap_err();
    assert!(matches!(again, StorageError::Exists { .. }));
}

#[test]
fn a_joining_host_becomes_a_joined_one_once() {
    let root = tempfile::tempdir().unwrap();
    let mut dir = DataDir::create(root.path(), &joining()).unwrap();
    dir.set_identity(&joining()).unwrap();
    let other_instance = HostIdentity {
        instance: 78,
        ..identity(5)
    };
    let refused = dir.set_identity(&other_instance).unwrap_err();
    assert!(matches!(refused, StorageError::OutOfOrder(_)));
    drop(dir);

    // The join was cut off: it is asked again with the same instance.
    let mut dir = DataDir::open(root.path()).unwrap();
    assert_eq!(*dir.identity(), joining());
    dir.set_identity(&identity(5)).unwrap();
    dir.set_identity(&identity(5)).unwrap();
    for other in [identity(6), joining()] {
        let refused = dir.set_identity(&other).unwrap_err();
        assert!(matches!(refused, StorageError::OutOfOrder(_)));
    }
    drop(dir);
    assert_eq!(*DataDir::open(root.path()).unwrap().identity(), identity(5));
}

#[test]
fn an_identity_that_a_crash_kept_from_being_written_whole_is_the_one_before() {
    let root = tempfile::tempdir().unwrap();
    drop(DataDir::create(root.path(), &joining()).unwrap());
    let other = tempfile::tempdir().unwrap();
    drop(DataDir::create(other.path(), &identity(5)).unwrap());
    let text = fs::read(other.path().join("VERSION")).unwrap();
    for written in 0..=text.len() {
        fs::write(root.path().join("VERSION.tmp"), &text[..written]).unwrap();
        assert_eq!(*DataDir::open(root.path()).unwrap().identity(), joining());
        assert!(!root.path().join("VERSION.tmp").exists());
    }
}

#[test]
fn a_second_host_is_told_who_holds_the_directory() {
    let root = tempfile::tempdir().unwrap();
    let first = DataDir::create(root.path(), &identity(1)).unwrap();
    let text = DataDir::open(root.path()).unwrap_err().to_string();
    assert!(text.contains(&std::process::id().to_string()), "{text}");
    assert!(text.contains(root.path().to_str().unwrap()), "{text}");
    drop(first);
    DataDir::open(root.path()).unwrap();
}

#[test]
fn another_format_is_refused_with_what_to_do_and_left_as_it_is() {
    let root = tempfile::tempdir().unwrap();
    let text = "maitred data directory\nformat 2\nhost 1\n";
    fs::write(root.path().join("VERSION"), text).unwrap();
    for opened in [
        DataDir::open(root.path()).map(drop),
        DataDir::open_or_create(root.path(), &identity(1)).map(drop),
        DataDir::peek(root.path()).map(drop),
    ] {
        let said = opened.unwrap_err().to_string();
        assert!(
            said.contains("format \"2\"") && said.contains("rejoin"),
            "{said}"
        );
    }
    assert_eq!(names(root.path()), ["VERSION"]);
}

#[test]
fn a_folder_of_somebody_else_is_left_alone() {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("thesis.txt"), "mine").unwrap();
    let error = DataDir::open_or_create(root.path(), &identity(1)).unwrap_err();
    assert!(error.to_string().contains("thesis.txt"));
    assert!(DataDir::peek(root.path()).is_err());
    assert_eq!(names(root.path()), ["thesis.txt"]);
}

#[test]
fn a_log_without_its_version_file_is_not_taken_for_an_empty_directory() {
    let root = tempfile::tempdir().unwrap();
    let dir = DataDir::create(root.path(), &identity(1)).unwrap();
    fs::write(dir.raft().join("0000000000000001.raftlog"), "x").unwrap();
    drop(dir);
    fs::remove_file(root.path().join("VERSION")).unwrap();
    let error = DataDir::open_or_create(root.path(), &identity(1)).unwrap_err();
    assert!(matches!(error, StorageError::NotOurs { .. }));
}

#[test]
fn a_creation_that_was_cut_short_is_finished() {
    let root = tempfile::tempdir().unwrap();
    drop(DataDir::create(root.path(), &identity(1)).unwrap());
    fs::rename(root.path().join("VERSION"), root.path().join("VERSION.tmp")).unwrap();
    assert_eq!(DataDir::peek(root.path()).unwrap(), None);
    let made = DataDir::open_or_create(root.path(), &identity(2)).unwrap();
    assert!(made.is_new() && made.host() == 2);
    assert!(!root.path().join("VERSION.tmp").exists());
}

#[test]
fn a_directory_that_is_removed_leaves_what_others_put_there() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("data");
    let identity = joining();
    DataDir::create(&path, &identity).unwrap().remove().unwrap();
    assert!(!path.exists());
    // A mount point, with what its file system puts there.
    fs::create_dir_all(path.join("lost+found")).unwrap();
    fs::write(path.join("lost+found/kept"), "").unwrap();
    DataDir::create(&path, &identity).unwrap().remove().unwrap();
    assert!(path.join("lost+found/kept").exists());
    DataDir::create(&path, &identity).unwrap();
}
