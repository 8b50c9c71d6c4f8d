//! `nurl key new|show`.

use std::io::ErrorKind;
use std::path::Path;

use nurl::config::KeyError;
use nurl::{SecretKey, rt};

use crate::args::KeyCommand;
use crate::event::Line;
use crate::out::{Code, Failure, Out, shown, unusable};

pub(crate) async fn run(command: KeyCommand, out: Out<'_>) -> Result<(), Failure> {
    let key = match command {
        KeyCommand::New { path, .. } => {
            let key = SecretKey::generate(&mut rt::rng("key"));
            key.save_new(&path).map_err(|error| bad_key_file(&path, &error))?;
            key
        }
        KeyCommand::Show { path, .. } => {
            SecretKey::load(&path).map_err(|error| bad_key_file(&path, &error))?
        }
    };
    let key = key.public().to_string();
    out.line(&Line::Key { key: key.clone() }, || Some(key)).await;
    Ok(())
}

/// The failure for a key file that can't be read, created or parsed, with a remedy.
pub(crate) fn bad_key_file(path: &Path, error: &KeyError) -> Failure {
    match error {
        KeyError::File { error, .. } => {
            let hint = match error.kind() {
                ErrorKind::AlreadyExists => "a key is never overwritten: choose another name",
                ErrorKind::NotFound => "make one with `nurl key new`",
                _ => "choose another file",
            };
            unusable(path, error, hint)
        }
        // The file stays unchanged: it may hold a key in another format.
        _ => Failure::new(
            Code::Resource,
            format!("{}: {error}: make another with `nurl key new`", shown(&path.to_string_lossy())),
        ),
    }
}
