//! `tidemark man`: one page with all commands.

use clap::Command;
use clap_mangen::Man;

use super::{error::CommandError, output::print};

/// Prints the page: the command itself, then each of its commands in full.
pub fn run(mut command: Command) -> Result<(), CommandError> {
    command.build();
    let mut page = Vec::new();
    write(command, &mut page)
        .map_err(|e| CommandError::Other(format!("the page cannot be written: {e}")))?;
    print(String::from_utf8_lossy(&page).trim_end());
    Ok(())
}

fn write(command: Command, page: &mut Vec<u8>) -> std::io::Result<()> {
    let commands: Vec<_> = command
        .get_subcommands()
        .filter(|c| c.get_name() != "help")
        .cloned()
        .collect();
    Man::new(command).render(page)?;
    for command in commands {
        page.extend(format!("\n.SH \"TIDEMARK {}\"\n", command.get_name().to_uppercase()).bytes());
        let about = command
            .get_about()
            .map(ToString::to_string)
            .unwrap_or_default();
        page.extend(format!("{about}.\n").bytes());
        let man = Man::new(command);
        man.render_synopsis_section(page)?;
        man.render_options_section(page)?;
        man.render_extra_section(page)?;
    }
    Ok(())
}
