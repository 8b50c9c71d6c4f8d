//! The authority's key in a state folder: made, opened, sealed. All commands that use it open it here.

use std::io::BufRead as _;
use std::path::{Path, PathBuf};

use nurl::config::KeyError;
use nurl::pass::{AuthorityKey, KeyFile, SealedKey};
use nurl::rt::{self, disk};
use nurl::{SecretKey, Ticket};
use zeroize::Zeroizing;

use crate::args::{Passphrase, PassphraseArgs};
use crate::client::ticket;
use crate::event::Line;
use crate::key::bad_key_file;
use crate::out::{Code, Failure, Out, shown, unusable};

/// The longest passphrase, in bytes.
const MAX_PASSPHRASE_BYTES: usize = 1_024;

/// The variable with the passphrase.
const VARIABLE: &str = "NURL_PASSPHRASE";

type Text = Zeroizing<String>;

fn file(state: &Path) -> PathBuf {
    state.join("authority")
}

/// Opens the authority's key in a state folder.
pub(crate) fn open(state: &Path, by: &Passphrase) -> Result<AuthorityKey, Failure> {
    let file = file(state);
    if !disk::exists(&file) {
        let folder = shown(&state.to_string_lossy());
        let message = format!(
            "{folder} has no authority's key: give --state the folder of the hub that made the mesh, or of `nurl mesh new`"
        );
        return Err(Failure::new(Code::Resource, message));
    }
    match KeyFile::load(&file).map_err(|error| bad_key_file(&file, &error))? {
        KeyFile::Open(authority) => Ok(authority),
        KeyFile::Sealed(sealed) => {
            let Some(passphrase) = given(by)? else {
                let message = format!(
                    "{} is sealed: give its passphrase by --passphrase-file or {VARIABLE}",
                    shown(&file.to_string_lossy())
                );
                return Err(Failure::new(Code::Passphrase, message));
            };
            sealed.open(passphrase.as_bytes()).map_err(|error| match error {
                KeyError::Passphrase => {
                    let path = shown(&file.to_string_lossy());
                    Failure::new(Code::Passphrase, format!("{path}: a wrong passphrase: nothing was done"))
                }
                other => bad_key_file(&file, &other),
            })
        }
    }
}

/// Opens the key, if there is one.
pub(crate) fn open_if_any(state: &Path, by: &Passphrase) -> Result<Option<AuthorityKey>, Failure> {
    if disk::exists(&file(state)) { open(state, by).map(Some) } else { Ok(None) }
}

/// A new key.
pub(crate) fn draw(rng: &mut rt::Rng) -> AuthorityKey {
    AuthorityKey::from_seed(SecretKey::generate(rng).as_bytes())
}

/// Keeps a new key; sealed, if there is a passphrase. The file must not exist.
pub(crate) fn keep_new(
    state: &Path,
    authority: &AuthorityKey,
    by: &Passphrase,
    rng: &mut rt::Rng,
) -> Result<(), Failure> {
    let file = file(state);
    match given(by)? {
        None => {
            let seed = SecretKey::from_bytes(*authority.seed());
            seed.save_new(&file).map_err(|error| bad_key_file(&file, &error))
        }
        Some(passphrase) => {
            let sealed = SealedKey::seal(authority, passphrase.as_bytes(), rng);
            disk::create_new_private(&file, format!("{}\n", sealed.to_text()).as_bytes())
                .map_err(|error| unusable(&file, &error, "choose another --state"))
        }
    }
}

/// `nurl mesh passphrase`: sets, changes or removes it.
pub(crate) async fn passphrase(args: PassphraseArgs, out: Out<'_>) -> Result<(), Failure> {
    let authority = open(&args.state, &args.passphrase)?;
    let file = file(&args.state);
    let next = match &args.new_passphrase_file {
        Some(path) => Some(read(path)?),
        None => None,
    };
    let text = match &next {
        Some(next) => {
            let mut rng = rt::rng("authority");
            Zeroizing::new(SealedKey::seal(&authority, next.as_bytes(), &mut rng).to_text())
        }
        None => SecretKey::from_bytes(*authority.seed()).to_text(),
    };
    let line = Zeroizing::new(format!("{}\n", *text));
    disk::atomic_replace(&file, line.as_bytes())
        .map_err(|error| unusable(&file, &error, "the key in it is as it was"))?;
    let sealed = next.is_some();
    out.line(&Line::Authority { mesh: authority.mesh().to_string(), sealed }, || {
        let path = shown(&file.to_string_lossy());
        Some(match sealed {
            true => format!("{path} is sealed. Without the passphrase nobody opens it, you neither."),
            false => format!("{path} has no passphrase any more."),
        })
    })
    .await;
    Ok(())
}

/// The ticket beside the authority's key.
pub(crate) fn own_ticket(state: &Path, authority: &AuthorityKey) -> Result<Ticket, Failure> {
    let file = state.join("mesh");
    let ticket = ticket(&file.to_string_lossy())?;
    if ticket.mesh != authority.mesh() {
        let file = shown(&file.to_string_lossy());
        return Err(Failure::new(
            Code::Resource,
            format!("{file} is another mesh's than the authority's key beside it"),
        ));
    }
    Ok(ticket)
}

/// The passphrase, if one is given: by a file, or by the variable.
fn given(by: &Passphrase) -> Result<Option<Text>, Failure> {
    if let Some(path) = &by.passphrase_file {
        return read(path).map(Some);
    }
    match std::env::var(VARIABLE) {
        Ok(text) if !text.is_empty() => checked(Zeroizing::new(text), VARIABLE).map(Some),
        Ok(_) | Err(std::env::VarError::NotPresent) => Ok(None),
        Err(std::env::VarError::NotUnicode(_)) => {
            Err(Failure::new(Code::Passphrase, format!("{VARIABLE} isn't UTF-8")))
        }
    }
}

/// The first line of a file, or the next one of standard input for `-`.
fn read(path: &Path) -> Result<Text, Failure> {
    let name = shown(&path.to_string_lossy());
    let mut text = Zeroizing::new(String::new());
    if path == Path::new("-") {
        std::io::stdin()
            .lock()
            .read_line(&mut text)
            .map_err(|error| unusable(path, &error, "it can't be read"))?;
    } else {
        let bytes = disk::read_private(path, 2 * MAX_PASSPHRASE_BYTES as u64)
            .map_err(|error| unusable(path, &error, "give a file of mode 0600 with the passphrase"))?;
        let bytes = Zeroizing::new(bytes);
        let whole = std::str::from_utf8(&bytes)
            .map_err(|_| Failure::new(Code::Passphrase, format!("{name}: the passphrase isn't UTF-8")))?;
        text.push_str(whole.lines().next().unwrap_or_default());
    }
    checked(Zeroizing::new(text.trim_end_matches(['\n', '\r']).to_owned()), &name)
}

fn checked(text: Text, from: &str) -> Result<Text, Failure> {
    if text.is_empty() || text.len() > MAX_PASSPHRASE_BYTES {
        let message = format!("{from}: a passphrase has 1 to {MAX_PASSPHRASE_BYTES} bytes");
        return Err(Failure::new(Code::Passphrase, message));
    }
    Ok(text)
}
