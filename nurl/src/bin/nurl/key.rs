//! `nurl key new|show`.

use nurl::SecretKey;
use nurl::rt;

use crate::args::KeyCommand;
use crate::out::{Code, Failure, Out};

pub(crate) fn run(command: KeyCommand, out: Out) -> Result<(), Failure> {
    let key = match command {
        KeyCommand::New { path } => {
            let key = SecretKey::generate(&mut rt::rng("key"));
            key.save_new(&path).map_err(resource)?;
            key
        }
        KeyCommand::Show { path } => SecretKey::load(&path).map_err(resource)?,
    };
    out.raw(format!("{}\n", key.public()).as_bytes());
    Ok(())
}

fn resource(error: nurl::key::KeyError) -> Failure {
    Failure::new(Code::Resource, error.to_string())
}
