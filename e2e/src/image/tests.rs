use std::io::Read;

use super::*;

fn image(folder: &Path) -> Image {
    fs::write(folder.join("app"), "program").unwrap();
    fs::write(folder.join("data"), "text").unwrap();
    let file = |source: &str, path: &str, mode| File {
        source: folder.join(source),
        path: path.into(),
        mode,
    };
    Image {
        name: "localhost/sample:1".into(),
        files: vec![
            file("data", "/usr/share/sample/data", 0o644),
            file("app", "/app", 0o755),
        ],
        command: vec!["/app".into(), "-v".into()],
    }
}

fn packed(image: &Image) -> Vec<u8> {
    let mut bytes = Vec::new();
    pack(image, &mut bytes).unwrap();
    bytes
}

fn entries(bytes: &[u8]) -> Vec<(String, u32, u64, Vec<u8>)> {
    let mut archive = tar::Archive::new(bytes);
    archive
        .entries()
        .unwrap()
        .map(|entry| {
            let mut entry = entry.unwrap();
            let (path, header) = (entry.path().unwrap().display().to_string(), entry.header().clone());
            assert_eq!(header.mtime().unwrap(), 0);
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            (path, header.mode().unwrap(), header.uid().unwrap(), content)
        })
        .collect()
}

#[test]
fn digests_name_what_they_digest() {
    let folder = tempfile::tempdir().unwrap();
    let outer = entries(&packed(&image(folder.path())));
    let names: Vec<_> = outer.iter().map(|entry| entry.0.clone()).collect();
    let manifest: serde_json::Value = serde_json::from_slice(&outer[2].3).unwrap();
    assert_eq!(
        manifest,
        json!([{"Config": names[0], "RepoTags": ["localhost/sample:1"], "Layers": [names[1]]}])
    );
    assert_eq!(names[0], format!("{}.json", sha256(&outer[0].3)));
    assert_eq!(names[1], format!("{}.tar", sha256(&outer[1].3)));
    let config: serde_json::Value = serde_json::from_slice(&outer[0].3).unwrap();
    assert_eq!(
        config["rootfs"]["diff_ids"],
        json!([format!("sha256:{}", sha256(&outer[1].3))])
    );
    assert_eq!(
        config["config"],
        json!({"User": "65532:65532", "Cmd": ["/app", "-v"], "WorkingDir": "/"})
    );
}

#[test]
fn layer_is_sorted_with_its_folders_first() {
    let folder = tempfile::tempdir().unwrap();
    let outer = entries(&packed(&image(folder.path())));
    let layer: Vec<_> = entries(&outer[1].3)
        .into_iter()
        .map(|(path, mode, owner, content)| {
            assert_eq!(owner, 65_532);
            (path, mode, String::from_utf8(content).unwrap())
        })
        .collect();
    let expected = [
        ("usr/", 0o755, ""),
        ("usr/share/", 0o755, ""),
        ("usr/share/sample/", 0o755, ""),
        ("app", 0o755, "program"),
        ("usr/share/sample/data", 0o644, "text"),
    ];
    assert_eq!(
        layer,
        expected.map(|(path, mode, content)| (path.into(), mode, content.into()))
    );
}

#[test]
fn same_input_same_bytes_in_any_order() {
    let folder = tempfile::tempdir().unwrap();
    let mut image = image(folder.path());
    let first = packed(&image);
    image.files.reverse();
    assert_eq!(first, packed(&image));
}

#[test]
fn mistakes_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let with = |change: &dyn Fn(&mut Image)| {
        let mut image = image(folder.path());
        change(&mut image);
        pack(&image, io::sink()).unwrap_err().to_string()
    };
    for path in ["app", "/", "/a//b", "/a/../b", "/a/"] {
        let error = with(&|image| image.files[0].path = path.into());
        assert!(error.contains("absolute path"), "{error}");
    }
    assert!(with(&|image| image.files[0].path = "/app".into()).contains("twice"));
    assert!(with(&|image| image.files[0].path = "/app/data".into()).contains("\"/app\""));
    assert!(with(&|image| image.files[0].source = "/no/file".into()).contains("/no/file"));
    for name in ["sample", "localhost:5000/sample", ":1", "sample:"] {
        assert!(with(&|image| image.name = name.into()).contains("NAME:TAG"), "{name}");
    }
}
