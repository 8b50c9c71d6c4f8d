//! Files.

use chaos::World;
use chaos::tokio::fs::{self, File, OpenOptions};
use chaos::tokio::io::{AsyncReadExt as _, AsyncSeekExt as _, AsyncWriteExt as _, Result, SeekFrom};
use std::io::ErrorKind;

#[chaos::test(seeds = 2)]
async fn a_file_is_written_read_renamed_and_removed() -> Result<()> {
    fs::create_dir_all("data").await?;
    fs::write("data/a", "hello").await?;
    let mut file = File::options().read(true).append(true).open("data/a").await?;
    file.write_all(b", world").await?;
    file.seek(SeekFrom::Start(7)).await?;
    let mut rest = String::new();
    file.read_to_string(&mut rest).await?;
    assert_eq!((rest.as_str(), file.metadata().await?.len()), ("world", 12));
    file.set_len(5).await?;
    fs::write("data/b", "old").await?;
    fs::rename("data/a", "data/b").await?;
    assert_eq!(fs::read_to_string("data/b").await?, "hello");
    let (file, directory) = (fs::metadata("data/b").await?, fs::metadata("data").await?);
    assert_eq!((file.len(), file.is_file(), directory.is_dir()), (5, true, true));
    assert_eq!(fs::metadata("data/a").await.unwrap_err().kind(), ErrorKind::NotFound);
    assert!(!fs::try_exists("data/a").await?);
    File::create("data/b").await?;
    assert!(fs::read("data/b").await?.is_empty());
    fs::remove_file("data/b").await?;
    assert_eq!(fs::read("data/b").await.unwrap_err().kind(), ErrorKind::NotFound);
    Ok(())
}

#[chaos::test(seeds = 2)]
async fn a_file_is_opened_as_the_options_say() -> Result<()> {
    let kind = |options: &OpenOptions, path: &'static str| {
        let options = options.clone();
        async move { options.open(path).await.err().map(|error| error.kind()) }
    };
    fs::write("here", "x").await?;
    assert_eq!(kind(OpenOptions::new().write(true), "new").await, Some(ErrorKind::NotFound));
    assert_eq!(
        kind(OpenOptions::new().write(true).create_new(true), "here").await,
        Some(ErrorKind::AlreadyExists)
    );
    assert_eq!(kind(OpenOptions::new().read(true).create(true), "new").await, Some(ErrorKind::InvalidInput));
    assert_eq!(kind(OpenOptions::new().write(true), "/").await, Some(ErrorKind::IsADirectory));
    let mut reading = File::open("here").await?;
    assert_eq!(reading.write_all(b"y").await.unwrap_err().raw_os_error(), Some(9));
    Ok(())
}

#[chaos::test(seeds = 20)]
async fn what_is_synced_survives_a_loss_of_power(world: World) {
    let host = world.host("a").addr("10.0.0.1");
    host.run(async {
        let mut file = File::create("synced").await?;
        file.write_all(&[7; 5000]).await?;
        file.sync_all().await?;
        fs::write("old", "1").await?;
        File::open("old").await?.sync_all().await?;
        File::open("/").await?.sync_all().await?;
        let mut file = File::create("new").await?;
        file.write_all(b"2").await?;
        file.sync_all().await?;
        fs::rename("new", "old").await
    })
    .await
    .unwrap()
    .unwrap();
    host.power_loss();
    host.restart();
    host.run(async move {
        assert_eq!(fs::read("synced").await.unwrap(), [7; 5000]);
        let renamed = fs::read("old").await.unwrap();
        assert!(renamed == b"1" || renamed == b"2", "the old content or the new one, whole: {renamed:?}");
    })
    .await
    .unwrap();
}
