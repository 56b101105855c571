//! `tidemark key`: makes API keys.

use clap::Subcommand;

use super::{error::CommandError, output};
use crate::auth;

/// Make API keys for `serve --auth keys`
#[derive(clap::Args)]
pub struct Key {
    #[command(subcommand)]
    command: KeyCommand,
}

#[derive(Subcommand)]
enum KeyCommand {
    /// Print a new key, and its line for --keys-file, which has only its hash
    #[command(
        after_help = "Example:\n  tidemark key new user:ada | { read -r key; umask 077; echo \"$key\" > ada.key; cat >> keys; }"
    )]
    New {
        /// Who has the key, such as user:ada
        #[arg(default_value = "PRINCIPAL", hide_default_value = true)]
        principal: String,
    },
}

/// Runs the command.
pub fn run(args: &Key) -> Result<(), CommandError> {
    let KeyCommand::New { principal } = &args.command;
    auth::check_principal(principal).map_err(|problem| {
        CommandError::Usage(format!("{:?} {problem}", crate::error::shorten(principal)))
    })?;
    let key = auth::new_key()
        .map_err(|_| CommandError::Other("the system has no random numbers".into()))?;
    output::print(&format!("{key}\n{}", auth::key_line(principal, &key)));
    output::note(
        "The first line is the key. It is shown only now; the second is its line for --keys-file.",
    );
    Ok(())
}
