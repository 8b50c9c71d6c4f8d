//! The arguments of `nurl map`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::halt::Halt;
use crate::args::{MeshArgs, Output, parse_duration};

#[derive(Debug, Args)]
#[command(after_help = "\
Example: thumbnails of a folder of pictures, made by all the machines of a mesh. On each of them:
  nurl worker --mesh mesh.ticket --handler 'thumb=convert - -resize 128x128 -' --pure thumb
and on the one that has the pictures:
  nurl map --mesh mesh.ticket --kind thumb --out thumbs photos/*.jpg
If it was interrupted, or some failed: the same command again does the rest, and only that.

More examples:
  seq 1 100 | nurl map --mesh mesh.ticket --kind echo
  find photos -name '*.jpg' -print0 | nurl map --kind thumb --out thumbs --files-from - --null
  nurl map --kind thumb --out thumbs --halt soon,fail=3 photos/*.jpg
  nurl map --kind thumb --out thumbs --json photos/*.jpg | jq 'select(.error) | .source'

Each input goes to the worker that is expected to end it first, so a slow one holds up nobody. The last ones may be run
by two workers at once if these say that the kind is --pure.

With --out each result is a file of its own. That of a/b.jpg is DIR/b.jpg; if b.jpg belongs to another input
already, such as c/b.jpg, it is DIR/b-HASH.jpg with a hash of the input's path. Line 7 of standard input has
DIR/000007. A result is written aside and renamed: a file that is there is whole. DIR/.nurl-map.log has one
line of JSON for each input that ended: with its file, or with its error. A second run skips the inputs that
have their result: the same path, content and kind, and the file is still there.")]
pub(crate) struct MapArgs {
    #[command(flatten)]
    pub(crate) mesh: MeshArgs,
    /// The kind of job
    #[arg(long)]
    pub(crate) kind: String,
    /// One task per file [default: one per line of standard input]
    pub(crate) paths: Vec<PathBuf>,
    /// Take the names of the files from this file, or from standard input: one a line, as many as there are
    #[arg(long, value_name = "FILE|-", conflicts_with = "paths")]
    pub(crate) files_from: Option<PathBuf>,
    /// What --files-from names ends with a NUL byte, not with a newline (find -print0)
    #[arg(long, requires = "files_from")]
    pub(crate) null: bool,
    /// Write each result to a file in this directory, and go on where an earlier run ended
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// When to give up: never; soon (start no more) or now (cancel what runs, too), after ,fail=N failures [default 1], or
    /// after N% of what has ended, but at least three
    #[arg(long, default_value = "never", value_name = "never|soon|now[,fail=N|N%]")]
    pub(crate) halt: Halt,
    /// Give up on a task after this long
    #[arg(long, default_value = "5m", value_parser = parse_duration, value_name = "DURATION")]
    pub(crate) timeout: Duration,
    /// Tasks in flight at one time
    #[arg(short, long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) jobs: u16,
    #[command(flatten)]
    pub(crate) output: Output,
}
