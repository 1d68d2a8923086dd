//! Links, pipes and other files in place of the server's own.

use super::*;

fn make_pipe(path: &Path) {
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mkfifoat(rustix::fs::CWD, path, mode).unwrap();
}

#[test]
fn links_pipes_and_folders_in_place_of_own_files_are_refused_and_lead_nowhere() {
    let killed = Killed::with(2);
    // Another data folder, which links lead to.
    let other = killed.copied("other");
    fs::write(other.join("upload-of-somebody"), "another's").unwrap();
    let before = bytes_of_all(&other);
    type Change = fn(&Path, &Path);
    let link: Change = |path, other| std::os::unix::fs::symlink(other, path).unwrap();
    let link_to_file: Change = |path, other| std::os::unix::fs::symlink(other.join(DATABASE), path).unwrap();
    let dangling: Change = |path, _| std::os::unix::fs::symlink("/nonexistent/x", path).unwrap();
    let folder: Change = |path, _| fs::create_dir(path).unwrap();
    let pipe: Change = |path, _| make_pipe(path);
    let cases = [
        ("tmp", "a symbolic link", link),
        ("uploads", "a symbolic link", link),
        ("quarantine", "a symbolic link", link),
        ("index", "a symbolic link", link),
        ("audit", "a symbolic link", dangling),
        ("models", "a symbolic link", link),
        ("lock", "a symbolic link", link_to_file),
        ("ledger.log", "a symbolic link", link_to_file),
        ("ledger.log", "a named pipe", pipe),
        ("ledger.log", "a folder", folder),
        ("keys.json", "a named pipe", pipe),
        ("keys.lock", "a folder", folder),
        ("models.json", "a named pipe", pipe),
        (DATABASE, "a symbolic link", dangling),
        (DATABASE, "a named pipe", pipe),
        (DATABASE, "a folder", folder),
        (LOG, "a named pipe", pipe),
        (LOG, "a folder", folder),
    ];
    for (name, what, change) in cases {
        let data = killed.copied("changed");
        remove(&data.join(name));
        change(&data.join(name), &other);
        let (exit, said) = Server::start_refused(Options::default().data(&data));
        assert!(exit == 1 && said.contains("error[io]"), "{name} as {what}: {exit} {said}");
        assert!(said.contains(&format!("`{name}`")) && said.contains(what), "{name} as {what}: {said}");
        assert_eq!(bytes_of_all(&other), before, "{name} as {what}");
        fs::remove_dir_all(&data).unwrap();
    }
    // The data folder itself may be reached by a link.
    let by_link = killed.dir.path().join("link");
    std::os::unix::fs::symlink(killed.folder(), &by_link).unwrap();
    let server = Server::start(Options::default().data(&by_link));
    assert_eq!(assets(&server), killed.acknowledged);
}

#[test]
fn what_is_no_index_file_is_put_aside_and_the_index_rebuilt() {
    let killed = Killed::with(2);
    let server = Server::start(Options::default().data(&killed.folder()));
    let query = json!({"query": "a red circle", "targets": ["audio"], "limit": 10});
    let found = |server: &Server| -> Vec<_> {
        let hits = server.search(&query);
        hits.iter().map(|hit| (hit["asset_id"].clone(), hit["start_secs"].clone())).collect()
    };
    let wanted = found(&server);
    server.stop();
    let snapshots: Vec<_> = files(&killed.folder().join("index"));
    let snapshot = snapshots.iter().find(|path| path.extension().is_some_and(|end| end == "snapshot"));
    let name = snapshot.unwrap().file_name().unwrap();
    type Change = fn(&Path);
    let changes: [Change; 3] = [
        make_pipe,
        |path| std::os::unix::fs::symlink("/dev/zero", path).unwrap(),
        |path| fs::create_dir_all(path.join("inside")).unwrap(),
    ];
    for change in changes {
        let data = killed.copied("index-changed");
        let path = data.join("index").join(name);
        remove(&path);
        change(&path);
        let server = Server::start(Options::default().data(&data));
        assert_eq!(found(&server), wanted);
        let quarantine = data.join("quarantine");
        assert_eq!(fs::read_dir(&quarantine).unwrap().count(), 1, "it is put aside");
        server.stop();
        assert!(fs::symlink_metadata(&path).unwrap().is_file(), "the index is saved again");
        fs::remove_dir_all(&data).unwrap();
    }
}
