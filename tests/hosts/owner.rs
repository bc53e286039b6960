//! `--output`: who may use a file after it was replaced, and which files and places are left alone.

use std::{
    ffi::OsStr,
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, chown, lchown, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use rustix::fs::{XattrFlags, lgetxattr, setxattr};

use crate::{
    assert_failed, printed,
    support::{
        daemon::{Finished, copy_binary, hosts, run, tool_behind},
        etcd::{Etcd, arg, scratch},
    },
    three,
};

/// An account that nobody has.
const STRANGER: u32 = 54321;
/// What the three hosts are.
const CONTENT: &str = "10.0.0.5:4300,a:4300,[2001:db8::1]:4301\n";

/// A file with this owner, group and mode.
fn file(path: &Path, owner: u32, group: u32, mode: u32) {
    fs::write(path, "old\n").unwrap();
    chown(path, Some(owner), Some(group)).expect("as root");
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn owner_group_mode(path: &Path) -> (u32, u32, u32) {
    let meta = fs::metadata(path).unwrap();
    (meta.uid(), meta.gid(), meta.mode() & 0o7777)
}

/// A directory with this mode, which everybody can reach.
fn directory(dir: &Path, mode: u32) -> PathBuf {
    let inner = dir.join("inner");
    fs::create_dir(&inner).unwrap();
    for (path, mode) in [(dir, 0o755), (&inner, mode)] {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
    inner
}

fn write(etcd: &Etcd, path: &Path) -> Finished {
    run(hosts(etcd, &["--output", arg(path)]))
}

/// As the stranger.
fn write_as_stranger(etcd: &Etcd, dir: &Path, path: &Path) -> Finished {
    let binary = dir.join("crate-discovery");
    copy_binary(&binary);
    let mut command =
        tool_behind("setpriv", &["--reuid=54321", "--regid=54321", "--clear-groups", arg(&binary)]);
    command.args(["hosts", "--endpoints", &etcd.url(), "--output", arg(path)]);
    run(command)
}

#[test]
fn replaced_file_keeps_owner_group_and_mode() {
    let etcd = three();
    let dir = scratch();
    for (owner, group, mode) in [(0, 1000, 0o640), (1000, 1000, 0o600), (1000, 1001, 0o644), (0, 0, 0o664)] {
        let path = dir.path().join(format!("{owner}-{group}"));
        file(&path, owner, group, mode);
        let inode = fs::metadata(&path).unwrap().ino();
        assert_eq!(write(&etcd, &path).printed(), "");
        assert_eq!(fs::read_to_string(&path).unwrap(), CONTENT);
        assert_eq!(owner_group_mode(&path), (owner, group, mode));
        assert_ne!(fs::metadata(&path).unwrap().ino(), inode, "replaced");
    }
}

#[test]
fn file_whose_owner_cannot_be_kept_is_rewritten_in_place_and_that_is_said() {
    let etcd = three();
    let dir = scratch();
    let inner = directory(dir.path(), 0o777);
    let path = inner.join("seeds");
    file(&path, 0, 0, 0o666);
    let inode = fs::metadata(&path).unwrap().ino();
    let finished = write_as_stranger(&etcd, dir.path(), &path);
    assert_eq!(finished.code, 0, "{}", finished.stderr);
    let warned = finished.stderr.lines().filter(|line| line.contains("rewritten in place instead")).count();
    assert_eq!(warned, 1, "{}", finished.stderr);
    assert_eq!(fs::read_to_string(&path).unwrap(), CONTENT);
    assert_eq!((owner_group_mode(&path), fs::metadata(&path).unwrap().ino()), ((0, 0, 0o666), inode));
    assert_eq!(fs::read_dir(&inner).unwrap().count(), 1);

    // Nor may it be written: it is not for us to take it away from its owner.
    file(&path, 0, 0, 0o644);
    let finished = write_as_stranger(&etcd, dir.path(), &path);
    assert_failed(&finished, 78);
    assert!(
        finished.stderr.contains("nor can it be rewritten in place: permission denied"),
        "{}",
        finished.stderr
    );
    assert_eq!(fs::read_to_string(&path).unwrap(), "old\n");
    assert_eq!(owner_group_mode(&path), (0, 0, 0o644));
}

#[test]
fn link_of_another_user_in_a_sticky_directory_is_not_followed() {
    let etcd = three();
    let dir = scratch();
    let shared = directory(dir.path(), 0o1777);
    let victim = dir.path().join("victim");
    fs::write(&victim, "old\n").unwrap();
    let link = |name: &str, target: &Path, owner| {
        let path = shared.join(name);
        symlink(target, &path).unwrap();
        lchown(&path, Some(owner), Some(owner)).unwrap();
        path
    };
    let refused = [
        link("file", &victim, STRANGER),
        link("nothing", &dir.path().join("new"), STRANGER),
        link("directory", dir.path(), STRANGER).join("victim"),
        link("ours", &link("theirs", &victim, STRANGER), 0),
    ];
    for path in refused {
        let finished = write(&etcd, &path);
        assert_failed(&finished, 78);
        assert!(finished.stderr.contains("was made by another user"), "{}", finished.stderr);
        assert_eq!(fs::read_to_string(&victim).unwrap(), "old\n");
    }
    assert!(!dir.path().join("new").exists());

    // Ours, and in a directory where only its owner may write.
    assert_eq!(write(&etcd, &link("own", &victim, 0)).printed(), "");
    assert_eq!(fs::read_to_string(&victim).unwrap(), CONTENT);
    fs::write(&victim, "old\n").unwrap();
    fs::set_permissions(&shared, fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(write(&etcd, &shared.join("file")).printed(), "");
    assert_eq!(fs::read_to_string(&victim).unwrap(), CONTENT);
}

/// It would stay theirs, and so would what our readers believe.
#[test]
fn file_of_another_user_in_a_sticky_directory_is_refused() {
    let etcd = three();
    let dir = scratch();
    let path = directory(dir.path(), 0o1777).join("seeds");
    file(&path, STRANGER, STRANGER, 0o644);
    let finished = write(&etcd, &path);
    assert_failed(&finished, 78);
    assert!(finished.stderr.contains("another user made it"), "{}", finished.stderr);
    assert_eq!(fs::read_to_string(&path).unwrap(), "old\n");
}

#[test]
fn links_in_a_circle_end() {
    let etcd = three();
    let dir = scratch();
    let path = dir.path().join("a");
    symlink("b", &path).unwrap();
    symlink("a", dir.path().join("b")).unwrap();
    let finished = write(&etcd, &path);
    assert_failed(&finished, 78);
    assert!(finished.stderr.contains("too many levels of symbolic links"), "{}", finished.stderr);
}

/// acl(5) as it is stored: version 2, and tag, permissions and id of each entry.
fn list(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let mut bytes = 2u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(permissions.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

/// The owner writes, user 1000 reads, and nobody else.
fn for_user_1000() -> Vec<u8> {
    const NOBODY: u32 = u32::MAX;
    list(&[(0x01, 6, NOBODY), (0x02, 4, 1000), (0x04, 0, NOBODY), (0x10, 4, NOBODY), (0x20, 0, NOBODY)])
}

fn access_list(path: &Path) -> Option<Vec<u8>> {
    let mut bytes = vec![0; 1000];
    let length = lgetxattr(path, "system.posix_acl_access", &mut bytes[..]).ok()?;
    bytes.truncate(length);
    Some(bytes)
}

fn can_read(path: &Path, user: u32) -> bool {
    let reuid = format!("--reuid={user}");
    let mut cat = Command::new("setpriv");
    cat.args([&reuid, "--regid=54321", "--clear-groups", "cat", arg(path)]);
    cat.output().unwrap().status.success()
}

#[test]
fn access_list_of_the_file_is_kept_and_that_of_the_directory_holds_for_a_new_file() {
    let etcd = three();
    let dir = scratch();
    let inner = directory(dir.path(), 0o755);
    let path = inner.join("seeds");
    file(&path, 0, 0, 0o600);
    setxattr(&path, "system.posix_acl_access", &for_user_1000(), XattrFlags::empty()).unwrap();
    assert_eq!(write(&etcd, &path).printed(), "");
    assert_eq!(access_list(&path), Some(for_user_1000()));
    assert_eq!((can_read(&path, 1000), can_read(&path, 1001)), (true, false));

    setxattr(&inner, "system.posix_acl_default", &for_user_1000(), XattrFlags::empty()).unwrap();
    let (new, old) = (inner.join("new"), inner.join("old"));
    assert_eq!(write(&etcd, &new).printed(), "");
    assert_eq!(owner_group_mode(&new), (0, 0, 0o644));
    assert!(can_read(&new, 1000) && can_read(&new, 1001));
    file(&old, 0, 0, 0o600);
    rustix::fs::removexattr(&old, "system.posix_acl_access").unwrap();
    fs::set_permissions(&old, fs::Permissions::from_mode(0o640)).unwrap();
    assert_eq!(write(&etcd, &old).printed(), "");
    assert_eq!((owner_group_mode(&old), access_list(&old)), ((0, 0, 0o640), None));
    assert!(!can_read(&old, 1000));
}

/// A mark of chattr(1), taken away when dropped.
struct Marked<'a> {
    path: &'a Path,
    mark: char,
}

impl<'a> Marked<'a> {
    fn new(path: &'a Path, mark: char) -> Self {
        chattr(&format!("+{mark}"), path);
        Self { path, mark }
    }
}

impl Drop for Marked<'_> {
    fn drop(&mut self) {
        chattr(&format!("-{}", self.mark), self.path);
    }
}

fn chattr(mark: &str, path: &Path) {
    let done = Command::new("chattr").args([OsStr::new(mark), path.as_os_str()]).status();
    assert!(done.unwrap().success(), "chattr takes root");
}

#[test]
fn what_chattr_forbids_is_said_in_its_words_and_nothing_is_left_behind() {
    let etcd = three();
    let dir = scratch();
    let inner = directory(dir.path(), 0o755);
    let path = inner.join("seeds");
    file(&path, 0, 0, 0o644);
    for (marked, mark, says) in [
        (&inner, 'i', "its directory is immutable (chattr +i): the file can only be rewritten in place"),
        (
            &inner,
            'a',
            "nothing in its directory can be replaced (chattr +a): the file can only be rewritten in place",
        ),
        (&path, 'i', "it is immutable (chattr +i)"),
        (&path, 'a', "it can only be appended to (chattr +a)"),
    ] {
        let _marked = Marked::new(marked, mark);
        let finished = write(&etcd, &path);
        assert_failed(&finished, 78);
        assert!(finished.stderr.contains(says), "{}", finished.stderr);
        assert_eq!(fs::read_to_string(&path).unwrap(), "old\n");
        assert_eq!(fs::read_dir(&inner).unwrap().count(), 1, "no temporary file is left");
    }
    let _marked = Marked::new(&inner, 'i');
    let finished = write(&etcd, &inner.join("new"));
    assert!(
        finished.stderr.trim_end().ends_with("its directory is immutable (chattr +i)"),
        "{}",
        finished.stderr
    );
    assert_eq!(printed(&etcd, &[]), CONTENT);
}
